"""Lightning's reading and writing of checkpoints, by way of `files`."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from typing_extensions import override

from cnn_lightning.files import atomic_writer, load_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and never runs code from one.

    It removes what it has written itself, and nothing that a checkpoint or a config names besides.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with atomic_writer(Path(path)) as stream:
            torch.save(checkpoint, stream)
        self._folders.add(Path(path).absolute().parent)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path))

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        path = Path(path).absolute()
        if path.parent in self._folders and path.suffix == ".ckpt" and path.is_file():
            path.unlink()
