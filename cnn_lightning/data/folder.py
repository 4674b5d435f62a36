"""Folders of image files, one per class."""

import os
from pathlib import Path
from typing import Any

from typing_extensions import override

from cnn_lightning.console import say
from cnn_lightning.data.base import Split
from cnn_lightning.data.listed import ListedImagesDataModule
from cnn_lightning.data.listing import ImageFile, holds_runs, look_at
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.images import EXTENSIONS, is_image_name, walk_files

_LAYOUT = "put images into <root>/train/<class>/ and <root>/test/<class>/, or into <root>/<class>/"
_MAX_NAMED = 3
_VALIDATION = ("val", "valid", "validation")
_SPLITS = ("train", "test", *_VALIDATION)


class ImageFolderDataModule(ListedImagesDataModule):
    """Your own images: one folder per class, in `root/train` and `root/test` or in `root` itself.

    Folders within a class's folder belong to it; a folder of runs (`logs`) is no class. Without
    `test/`, a share of each class is held out as the test set. Images are scaled and cropped to one
    square size (`fit_image`). They are decoded once, into `root/.cnn_lightning_cache` (or
    `$CNN_LIGHTNING_CACHE` if set, or `~/.cache/cnn-lightning` if `root` is read-only), and anew
    when files appear, vanish, or change in size or time.

    Args:
        root: Folder of the data.
        **kwargs: As for `ListedImagesDataModule`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = tempfile.TemporaryDirectory()
        >>> for name in ("cat", "dog"):
        ...     folder = Path(root.name, "train", name)
        ...     folder.mkdir(parents=True)
        ...     for number in range(10):
        ...         Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(folder / f"{number}.png")
        >>> data = ImageFolderDataModule(root=root.name, batch_size=4)
        >>> data.class_names, data.image_shape
        (('cat', 'dog'), (3, 16, 16))
        >>> root.cleanup()
    """

    def __init__(self, *, root: str, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self._told: set[Path] = set()
        self._find_folders()

    @property
    @override
    def has_test(self) -> bool:
        return self._test_dir is not None

    @override
    def first_files(self) -> list[Path]:
        folders = [self._train_dir / name for name in self.class_names]
        return [folder / self._list(folder, [])[0] for folder in folders]

    @override
    def list_files(self, split: Split) -> list[ImageFile]:
        parent = self._test_dir if split == "test" and self._test_dir else self._train_dir
        files: list[ImageFile] = []
        others: list[str] = []
        for label, name in enumerate(self.class_names):
            if parent == self._test_dir and not (parent / name).is_dir():
                continue  # the test set may lack a class
            leads_out = parent.is_symlink() or (parent / name).is_symlink()
            inner = (parent / name).relative_to(self.root).as_posix()
            files += [
                look_at(
                    self.root,
                    f"{inner}/{file}",
                    label,
                    may_lead_out=leads_out or os.path.islink(f"{parent}/{name}/{file}"),  # noqa: PTH114
                    allow_links=self.allow_links,
                )
                for file in self._list(parent / name, others)
            ]
        if not files:
            raise MissingDataError(
                f"{parent} holds no images",
                "put some into <class>/ there, or delete it to have test_fraction of the others "
                "held out",
            )
        self._tell_of(others, parent)
        return files

    def _find_folders(self) -> None:
        if not self.root.is_dir():
            remedy = f"{_LAYOUT}; if they are elsewhere, say where: --data.root FOLDER"
            raise UserError(f"there is no folder {self.root}", remedy)
        train, test = self.root / "train", self.root / "test"
        if test.is_dir() and not train.is_dir():
            raise UserError(f"{self.root} holds test/ but no train/", _LAYOUT)
        self._train_dir = train if train.is_dir() else self.root
        self._test_dir = test if test.is_dir() else None
        self.class_names = tuple(_folders_in(self._train_dir))
        if len(self.class_names) < 2:
            raise UserError(
                f"{self._train_dir} holds {len(self.class_names)} class folder(s), not 2 or more",
                self._remedy_of_few(),
            )
        for name in _folders_in(test) if self._test_dir else ():
            if name not in self.class_names:
                raise UserError(
                    f"{test / name} is a class that {train} does not have",
                    f"the classes are {', '.join(self.class_names[:20])}",
                )
        unused = [name for name in _VALIDATION if (self.root / name).is_dir()]
        if unused and self._train_dir == train:
            say(f"{self.root / unused[0]} is not used: val_fraction holds images of {train} out")

    def _remedy_of_few(self) -> str:
        """How to come to two classes."""
        others = [name for name in _folders_in(self.root) if name not in _SPLITS]
        if self._train_dir == self.root or not others:
            return _LAYOUT
        return (
            f"if train is a class as {others[0]} is, move all classes into a new folder train: "
            f"{self.root}/train/train, {self.root}/train/{others[0]}"
        )

    def _list(self, folder: Path, others: list[str]) -> list[str]:
        """The images of a class; files that are none go to `others`."""
        found = walk_files(folder)
        names = [name for name in found if is_image_name(name)]
        others += [f"{folder.name}/{name}" for name in found if not is_image_name(name)]
        if not names:
            raise UserError(
                f"{folder} holds no images",
                f"put files ending in {', '.join(EXTENSIONS)} there, or delete the folder",
            )
        return names

    def _tell_of(self, others: list[str], parent: Path) -> None:
        """Say once which files are passed over."""
        if others and parent not in self._told:
            named = ", ".join(others[:_MAX_NAMED]) + (", …" if len(others) > _MAX_NAMED else "")
            count = f"{len(others):,} file(s) in {parent}"
            say(f"{count} are not used, as images end otherwise: {named}")
        self._told.add(parent)


def _folders_in(folder: Path) -> list[str]:
    found = []
    for path in folder.iterdir():
        if not path.is_dir() or path.name.startswith("."):
            continue
        if holds_runs(path):
            say(f"{path} is no class: it holds what commands left")
            continue
        try:
            path.name.encode()
        except UnicodeEncodeError as error:  # neither pictures nor TensorBoard can write it
            raise UserError(f"{path} has a name that is not in UTF-8", "rename it") from error
        found.append(path.name)
    return sorted(found)
