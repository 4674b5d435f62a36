"""Lightning's reading and writing of checkpoints, by way of `files`."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from typing_extensions import override

from cnn_lightning.files import atomic_writer, load_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and never runs code from one."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        with atomic_writer(Path(path)) as stream:
            torch.save(checkpoint, stream)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return load_checkpoint(Path(path))
