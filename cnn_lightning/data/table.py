"""Image files named by a table: a CSV file with a path and a label in each line."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.data.base import Split, Stage
from cnn_lightning.data.listed import ListedImagesDataModule
from cnn_lightning.data.listing import ImageFile, look_at
from cnn_lightning.errors import MissingDataError, UserError

_LAYOUT = "begin the file with the line path,label or path,label,split"
_STAGES = ("train", "val", "test")


class _Row(NamedTuple):
    path: str
    label: str
    stage: str
    line: int


class ImageCSVDataModule(ListedImagesDataModule):
    r"""Your own images, listed in a CSV file with the columns `path` and `label`.

    A third column, `split`, may say `train`, `val` or `test` of each image. Without it,
    `test_fraction` of the images are held out as the test set; where no line says `val`,
    `val_fraction` of the training images are held out for validation. Further columns are passed
    over. The classes are the labels of the training images, in alphabetical order. Images are
    prepared and kept as by `ImageFolderDataModule`.

    Args:
        csv: The file, in UTF-8, with commas and a header.
        root: Folder that paths are relative to; `None` takes the one that the file is in.
        **kwargs: As for `ListedImagesDataModule`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> lines = ["path,label"]
        >>> for number in range(10):
        ...     Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(f"{folder.name}/{number}.png")
        ...     lines.append(f"{number}.png,{'cat' if number < 5 else 'dog'}")
        >>> table = Path(folder.name, "labels.csv")
        >>> _ = table.write_text("\n".join(lines))
        >>> data = ImageCSVDataModule(csv=str(table))
        >>> data.class_names, data.image_shape
        (('cat', 'dog'), (3, 16, 16))
        >>> folder.cleanup()
    """

    def __init__(self, *, csv: str, root: str | None = None, **kwargs: Any) -> None:
        self.table = Path(csv)
        super().__init__(root=root or str(self.table.parent), **kwargs)
        self._rows = list(_read_rows(self.table))
        self._check_rows()

    @property
    @override
    def has_test(self) -> bool:
        return any(row.stage != "train" for row in self._rows)

    @property
    @override
    def cache_name(self) -> str:
        return f"{self.table.name}_"

    @override
    def first_files(self) -> list[Path]:
        rows = self._of("train")
        first = {row.label: self.root / row.path for row in reversed(rows)}
        return [first[name] for name in self.class_names]

    @override
    def list_files(self, split: Split) -> list[ImageFile]:
        labels = {name: label for label, name in enumerate(self.class_names)}
        files = [self._look_at(row, labels[row.label]) for row in self._of(split)]
        if not files:
            raise MissingDataError(f"{self.table} has no line whose split is {split}", "add some")
        return files

    @override
    def stage_indices(self, stage: Stage) -> Tensor:
        if stage == "test" or not any(row.stage == "val" for row in self._rows):
            return super().stage_indices(stage)
        held_out = {row.path for row in self._rows if row.stage == "val"}
        is_val = torch.tensor([name in held_out for name in self.image_names("train")])
        return (is_val if stage == "val" else ~is_val).nonzero().flatten()

    def _of(self, split: Split) -> list[_Row]:
        """What `read` gives of a split: validation images are among those for training."""
        return [row for row in self._rows if (row.stage == "test") == (split == "test")]

    def _look_at(self, row: _Row, label: int) -> ImageFile:
        try:
            return look_at(
                self.root, row.path, label, may_lead_out=True, allow_links=self.allow_links
            )
        except UserError as error:
            raise _refuse(self.table, row.line, error.what, error.remedy) from error

    def _check_rows(self) -> None:
        seen: dict[str, int] = {}
        root = self.root.absolute()
        for row in self._rows:
            # as absolute ones, as some may be; by strings, for many rows
            path = os.path.normpath(os.path.join(root, row.path))  # noqa: PTH118
            if path in seen:
                raise _refuse(
                    self.table,
                    row.line,
                    f"{row.path} is in line {seen[path]} already",
                    "name each image once, or it may be trained on and tested on",
                )
            seen[path] = row.line
        self.class_names = tuple(sorted({row.label for row in self._rows if row.stage == "train"}))
        for row in self._rows:
            if row.label not in self.class_names:
                raise _refuse(
                    self.table,
                    row.line,
                    f"{row.label} is a class without training images",
                    f"the classes are {', '.join(self.class_names[:20])}",
                )
        if len(self.class_names) < 2:
            raise UserError(
                f"{self.table} has {len(self.class_names)} class(es) of training images, not 2 or "
                "more",
                _LAYOUT,
            )


def _read_rows(table: Path) -> Iterator[_Row]:
    """The lines of a table.

    Raises:
        UserError: It is missing or no table, or a line lacks something.
    """
    try:
        # "-sig": spreadsheets begin a file with a mark that would be part of the first name
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = reader.fieldnames or ()
            if not {"path", "label"} <= set(names):
                found = ", ".join(names)[:100] or "nothing"
                raise UserError(f"{table}, line 1: the columns are {found}", _LAYOUT)
            for values in reader:
                yield _row(table, reader.line_num, values, has_split="split" in names)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {table}", "check the path after --data.csv") from error
    except OSError as error:
        raise UserError(f"{table} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{table} is not in UTF-8", "save it as CSV in UTF-8") from error
    except csv.Error as error:
        # the inner one: the outer one counts the lines before this one
        raise _refuse(table, reader.reader.line_num, str(error), _LAYOUT) from error


def _row(table: Path, line: int, values: dict[str, Any], *, has_split: bool) -> _Row:
    # what a line has too much is under `None`, and what it has too little is `None`
    if None in values:
        raise _refuse(
            table, line, "it has more values than columns", 'put "" around values with a comma'
        )
    wanted = ("path", "label", "split") if has_split else ("path", "label")
    path, label, *split = ((values[name] or "").strip() for name in wanted)
    for name, value in zip(wanted, (path, label, *split), strict=True):
        if not value:
            raise _refuse(table, line, f"{name} is empty", "fill it in, or delete the line")
    stage = split[0] if split else "train"
    if stage not in _STAGES:
        raise _refuse(table, line, f"split is {stage}", f"write {', '.join(_STAGES[:2])} or test")
    return _Row(path, label, stage, line)


def _refuse(table: Path, line: int, what: str, remedy: str) -> UserError:
    return UserError(f"{table}, line {line}: {what}", remedy)
