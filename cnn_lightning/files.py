"""The only reader and writer of run files: whole or absent, and never code.

Everything is written beside its place, synchronised to disk and renamed, so that a crash leaves the
earlier file. Checkpoints are read with `weights_only=True` and nothing else.
"""

import os
import pickle
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from cnn_lightning.errors import UserError


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` only if the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with atomic_writer(path) as stream:
        stream.write(text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_writer(path) as stream:
        stream.write(content)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint or state dict onto the CPU without ever running code from it.

    Raises:
        UserError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}", "check the path after --ckpt_path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, or is damaged, and was not read",
            "use a checkpoint written by cnn-lightning or a plain state dict",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a whole checkpoint: {error}", "use another copy") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no checkpoint", "use a checkpoint or a state dict")
    return content
