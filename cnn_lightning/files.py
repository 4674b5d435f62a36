"""The only reader and writer of run files: whole or absent, and never code.

Everything is written beside its place, synchronised to disk and renamed, so that a crash leaves the
earlier file. Checkpoints are read with `weights_only=True` and nothing else.
"""

import errno
import os
import pickle
import struct
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnn_lightning.errors import DamagedFileError, RunError, UserError

# full, over quota, larger than allowed, broken, or read-only since something broke
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
# what others own, or a file where a folder should be
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.ENOTDIR}


@contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` only if the block ends without an exception.

    Raises:
        OSError: The disk is full or broken; names `path`.
    """
    with appearing_whole(path) as part, part.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def appearing_whole(path: Path, part: Path | None = None) -> Iterator[Path]:
    """Let a file appear at `path` only if the block ends without an exception.

    Args:
        path: Where it goes; the folder is made if absent.
        part: Where the block writes and synchronises it, from `part_of`; `None` chooses.

    Raises:
        OSError: The disk is full or broken, or the folder takes no files; names `path`.
    """
    part = part or part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _synchronize(path.parent)
    except Exception as error:
        failure = _find_failure(error, _DISK_ERRORS | _NO_ACCESS)
        if failure is None:
            raise
        # neither writing nor what torch makes of a failure names the file
        raise OSError(failure.errno, failure.strerror, str(path)) from error


def part_of(path: Path) -> Path:
    """A new name beside `path` for what is not whole yet."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half written in a folder and those within."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def explain_disk_failure(error: BaseException) -> RunError | None:
    """Put a full or broken disk in words; `None` if the error has another reason."""
    failure = _find_failure(error, _DISK_ERRORS)
    if failure is None:
        return None
    what = failure.filename or "a file"
    return RunError(f"{what} could not be written: {failure.strerror}", "make room for it")


def explain_no_access(error: BaseException) -> UserError | None:
    """Put a folder that takes no files in words; `None` if the error has another reason."""
    failure = _find_failure(error, _NO_ACCESS)
    if isinstance(error, OSError) and error.errno in _NO_ACCESS:
        failure = error  # names the file, what led to it perhaps a part of it
    if failure is None or not failure.filename:  # not of files, but of ports and processes
        return None
    return UserError(
        f"{failure.filename} cannot be opened: {failure.strerror}",
        "give a folder you may write to: --log_dir, or change who may use it",
    )


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
        DamagedFileError: It was cut off or changed since it was written.
        UserError: The file is missing, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}", "check the path after --ckpt_path")
    if is_archive := _is_archive(path):
        _check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not is_archive:
            raise _damaged(path) from error
        raise UserError(
            f"{path} holds more than tensors and plain values, and was not read",
            "use a checkpoint written by cnn-lightning or a plain state dict",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no checkpoint", "use a checkpoint or a state dict")
    return content


def map_array(path: Path, dtype: type[np.generic], num_rows: int) -> NDArray[Any] | None:
    """Map a `.npy` file into memory, copy on write; it never runs code.

    Args:
        path: The file.
        dtype: What its numbers must be.
        num_rows: How many rows it must have.

    Returns:
        The array, or `None` if the file is absent, damaged, or of another kind.
    """
    if not path.is_file():
        return None
    try:
        # copy on write: torch warns of read-only arrays, and the file must never change
        values = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError):
        return None
    is_right = isinstance(values, np.ndarray) and values.dtype == dtype and values.ndim > 1
    return values if is_right and len(values) == num_rows else None


def _is_archive(path: Path) -> bool:
    """Whether a file begins as those of torch.save do since version 1.6."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _check_sums(path: Path) -> None:
    """Hold an archive against its own sums, which torch.load does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compress; what does may unpack to more than any disk holds
            is_plain = all(item.compress_type == zipfile.ZIP_STORED for item in archive.infolist())
            is_whole = is_plain and archive.testzip() is None
    except (
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        struct.error,
    ) as error:
        raise _damaged(path) from error
    if not is_whole:
        raise _damaged(path)


def _damaged(path: Path) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is damaged: cut off, or changed since it was written", "use another copy"
    )


def _find_failure(error: BaseException | None, numbers: set[int]) -> OSError | None:
    """The first failure with one of these numbers among an error and those that led to it."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:  # what is raised anew from its result is a ring
        chain.insert(0, error)
        error = error.__cause__ or error.__context__
    found = [e for e in chain if isinstance(e, OSError) and e.errno in numbers]
    return next((failure for failure in found if failure.filename), found[0] if found else None)


def _synchronize(folder: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
