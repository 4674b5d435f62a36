"""One run folder for all processes of a run."""

from collections.abc import Callable

import lightning as L
from typing_extensions import override

from cnn_lightning.runs import RunFolder


class SameFolder(L.Callback):
    """Tells the run folder of the first process to all others.

    Each looks for a new one when it starts, and the first may have made its own by then.

    Args:
        folder: That of this process.
        take: Called with that of the first.
    """

    def __init__(self, folder: RunFolder, take: Callable[[RunFolder], None]) -> None:
        self.folder = folder
        self._take = take

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._take(trainer.strategy.broadcast(self.folder))
