"""The config of a resumed run, once there is a state that was trained with it."""

from pathlib import Path
from typing import Any

import lightning as L
from typing_extensions import override

from cnn_lightning.files import write_text


class ResumedConfig(L.Callback):
    """Writes what a run is resumed with, just before its first checkpoint, or at its end.

    Not when it is resumed: where that fails, the newest checkpoint is of the config before, with
    which the run must go on.

    Args:
        path: Where it goes, `config-resume-<n>.yaml`.
        text: The config.
    """

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text: str | None = text

    @override
    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._write(trainer)

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self._text is not None and trainer.is_global_zero:
            write_text(self._path, self._text)
            self._text = None
