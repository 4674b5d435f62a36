"""Which files make up a data set, and which of them may be opened."""

import os
from pathlib import Path
from typing import NamedTuple

from cnn_lightning.errors import UserError

# in the folder of a run, what a training, an evaluation or a prediction leaves first
_OF_RUN = ("config.yaml", "metrics.csv", "checkpoints", "figures")
# in a `log_dir`, what commands leave there that need no run
_WITHOUT_RUN = ("show/*/statistics.csv", "tune/*/learning_rate.png", "convolve/figures")


class ImageFile(NamedTuple):
    """One file as the last look at the disk found it.

    Attributes:
        name: Path relative to the root, with `/`.
        label: Place of its class in `class_names`.
        size: Bytes.
        mtime_ns: Time of the last change, in nanoseconds.
    """

    name: str
    label: int
    size: int
    mtime_ns: int


def look_at(
    root: Path, name: str, label: int, *, may_lead_out: bool, allow_links: bool
) -> ImageFile:
    """Look at one file of a labelled data set, without opening it.

    Args:
        root: Folder of the data.
        name: Path relative to it.
        label: Place of its class in `class_names`.
        may_lead_out: Whether its path may lead out of the root, by a link or by what it says.
        allow_links: Whether that is allowed.

    Raises:
        UserError: There is no such file, or it lies elsewhere and may not.
    """
    try:
        stat = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118  # of many files, quickly
    except (OSError, ValueError) as error:  # a link to nowhere, or a name that none can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{root / name} cannot be read: {reason}") from error
    if may_lead_out:
        check_place(root / name, root, may_lead_out=True, allow_links=allow_links)
    return ImageFile(name, label, stat.st_size, stat.st_mtime_ns)


def holds_runs(folder: Path) -> bool:
    """Whether a folder is the `log_dir` of some command, whose figures are no images of a class."""
    if any((run / name).exists() for run in folder.glob("*/version_*") for name in _OF_RUN):
        return True
    return any(True for pattern in _WITHOUT_RUN for _ in folder.glob(pattern))


def check_place(path: Path, root: Path, *, may_lead_out: bool, allow_links: bool) -> None:
    """Refuse a way out of the root, which a stranger could lead to any file of a machine.

    Raises:
        UserError: There is one, and it is not allowed.
    """
    if not may_lead_out or allow_links:
        return
    target = path.resolve()
    if not target.is_relative_to(root.resolve()):
        how = "is a link to" if path.is_symlink() else "leads to"
        raise UserError(
            f"{path} {how} {target}, outside of {root}",
            "copy the file, or give --data.allow_links true if all links are yours",
        )
