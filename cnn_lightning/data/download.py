"""Fetch the files of a public data set: whole, checked, or an error that says what to do."""

import hashlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from cnn_lightning.data.base import Split
from cnn_lightning.errors import UserError


def splits_to_prepare(trainer: Trainer | None) -> tuple[Split, ...]:
    """The splits whose files are needed now: one within a run of the Trainer, else both."""
    if trainer is None or trainer.state.fn is None:
        return ("train", "test")
    return (
        ("test",) if trainer.state.fn in (TrainerFn.TESTING, TrainerFn.PREDICTING) else ("train",)
    )


def md5_of(stream: BinaryIO) -> str:
    """The MD5 sum of a file's rest, 32 hexadecimal digits; the public sets are listed by it."""
    digest = hashlib.md5(usedforsecurity=False)
    while some := stream.read(2**20):
        digest.update(some)
    return digest.hexdigest()


def download(name: str, urls: Sequence[str], md5: str, folder: Path, remedy: str) -> Path:
    """Fetch `folder/name` unless it is there already with the right sum.

    The file appears under its name only when it is whole, so several machines that share a disk may
    do this at once.

    Args:
        name: Name of the file.
        urls: Addresses of the file, tried in turn.
        md5: Its MD5 sum, in hexadecimal.
        folder: Where it goes; made if absent.
        remedy: What the user can do instead, for the message of the error.

    Returns:
        The path of the file.

    Raises:
        UserError: No address gave the right file, or the folder cannot be written. A file with a
            wrong sum that is there is named.
    """
    path = folder / name
    is_wrong = path.is_file()
    if is_wrong:
        with path.open("rb") as stream:
            if md5_of(stream) == md5:
                return path
    # here, as torchvision takes a second to import and most runs find their files
    from torchvision.datasets.utils import download_url

    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=folder) as part_dir:
            for url in urls:
                try:
                    download_url(url, part_dir, name, md5)
                except (OSError, RuntimeError, HTTPException) as error:
                    failures.append(f"{url}: {' '.join(str(error).split())}")
                else:
                    (Path(part_dir) / name).replace(path)
                    return path
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror}",
            "free or unlock it, or set root (or $CNN_LIGHTNING_DATA) to another folder",
        ) from error
    what = f"cannot download {name} from {'; '.join(failures)}"
    if is_wrong:
        what = f"{path} is cut off or another file (its MD5 is not {md5}); {what}"
        remedy = f"delete it and {remedy}"
    raise UserError(what, remedy)
