"""Folders of image files, decoded once into a memory-mapped file that later runs reuse."""

import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from typing_extensions import override

from cnn_lightning.console import say
from cnn_lightning.data.base import ImageDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.files import atomic_writer, map_array, write_text
from cnn_lightning.images import EXTENSIONS, fit_square, list_images, read_image, read_size
from cnn_lightning.randomness import stratified_split

# over the 1.28 million training images of ImageNet-1k, as in torchvision's transforms and recipes
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CACHE_FOLDER = ".cnn_lightning_cache"

_LAYOUT = "put images into <root>/train/<class>/ and <root>/test/<class>/, or into <root>/<class>/"
# part of every fingerprint: raise it when the same files would be decoded to other pixels
_FORMAT = 1
_MAX_NAMED = 5
_CHUNK = 64  # images per task: enough that handing out tasks costs nothing


class ImageFile(NamedTuple):
    """One file as the last scan found it.

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


class ImageFolderDataModule(ImageDataModule):
    """Your own images: one folder per class, in `root/train` and `root/test` or in `root` itself.

    Without `test/`, a share of each class is held out as the test set. Images are scaled and
    cropped to one square size (`fit_square`). They are decoded once, into
    `root/.cnn_lightning_cache` (or `$CNN_LIGHTNING_CACHE` if set, or `~/.cache/cnn-lightning` if
    `root` is read-only), and anew when files appear, vanish, or change in size or time.

    Args:
        root: Folder of the data.
        image_size: Height and width that images are brought to. `None` takes the size of the first
            image of each class if they share one square size, and else 224.
        channels: 3 for colour, 1 for grey.
        mean: Per channel, in units of 0..1; `None` takes ImageNet's (of use with pretrained
            weights, near enough without), for grey 0.5.
        std: As `mean`.
        test_fraction: Share of each class held out as test set, 0..1, where there is no `test/`;
            `split_seed` decides which.
        num_workers: Threads that decode; `None` takes one per core.
        allow_links: Whether links may lead out of `root`; else they are refused.
        **kwargs: As for `ImageDataModule`.

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
        >>> data.class_names, data.image_shape, len(data.image_names("test"))
        (('cat', 'dog'), (3, 16, 16), 2)
        >>> root.cleanup()
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: int | None = None,
        channels: Literal[1, 3] = 3,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        test_fraction: float = 0.1,
        num_workers: int | None = None,
        allow_links: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        if image_size is not None and image_size < 1:
            raise UserError(f"image_size is {image_size}", "give a number of pixels")
        if not 0 < test_fraction < 1:
            raise UserError(f"test_fraction is {test_fraction}", "give a share between 0 and 1")
        self.image_size = image_size
        self.channels = channels
        self.mean = tuple(mean or (IMAGENET_MEAN if channels == 3 else (0.5,)))
        self.std = tuple(std or (IMAGENET_STD if channels == 3 else (0.5,)))
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise UserError(
                f"mean {self.mean} and std {self.std} do not fit {channels} channel(s)",
                "give one number per channel to each, std above 0",
            )
        self.test_fraction = test_fraction
        if num_workers is not None and num_workers < 1:
            raise UserError(f"num_workers is {num_workers}", "give a number of threads, or null")
        self.num_workers = num_workers or os.cpu_count() or 1
        self.allow_links = allow_links
        self._find_folders()
        self._files: dict[str, list[ImageFile]] = {}
        self._hashes: dict[str, str] = {}

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """C, H, W. The headers of one image per class are read when this is first asked for."""
        size = self.image_size
        if size is None:
            first = (self._list(self._train_dir / name)[0] for name in self.class_names)
            sizes = {read_size(path) for path in first}
            height, width = sizes.pop()
            size = height if not sizes and height == width else 224
        return self.channels, size, size

    @override
    def prepare_data(self) -> None:
        # on one process per machine, before `setup`: the others find the images decoded
        if self.trainer is not None:
            self.load("test" if self.trainer.state.fn in ("test", "predict") else "train")

    @override
    def read(self, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        self._files[split] = files = self._scan(split)
        content = [_FORMAT, self.image_shape, self.class_names, files]
        self._hashes[split] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        images = self._open_cache(split)
        if images is None:
            images = self._build_cache(split)
        return images, torch.tensor([file.label for file in files])

    @override
    def image_names(self, split: Literal["train", "test"]) -> Sequence[str]:
        self.load(split)
        return [file.name for file in self._files[split]]

    @override
    def fingerprint(self, split: Literal["train", "test"]) -> str:
        self.load(split)
        return self._hashes[split]

    def _find_folders(self) -> None:
        if not self.root.is_dir():
            raise UserError(f"there is no folder {self.root}", _LAYOUT)
        train, test = self.root / "train", self.root / "test"
        if test.is_dir() and not train.is_dir():
            raise UserError(f"{self.root} holds test/ but no train/", _LAYOUT)
        self._train_dir = train if train.is_dir() else self.root
        self._test_dir = test if test.is_dir() else None
        self.class_names = tuple(_folders_in(self._train_dir))
        if len(self.class_names) < 2:
            raise UserError(
                f"{self._train_dir} holds {len(self.class_names)} class folder(s), not 2 or more",
                _LAYOUT,
            )
        for name in _folders_in(test) if self._test_dir else ():
            if name not in self.class_names:
                raise UserError(
                    f"{test / name} is a class that {train} does not have",
                    f"the classes are {', '.join(self.class_names[:20])}",
                )
        unused = [name for name in ("val", "valid", "validation") if (self.root / name).is_dir()]
        if unused and self._train_dir == train:
            say(f"{self.root / unused[0]} is not used: val_fraction holds images of {train} out")

    def _list(self, folder: Path) -> list[Path]:
        paths = list_images(folder)
        if not paths:
            raise UserError(
                f"{folder} holds no images",
                f"put files ending in {', '.join(EXTENSIONS)} there, or delete the folder",
            )
        return paths

    def _scan(self, split: str) -> list[ImageFile]:
        """The files of one split, class by class, each class in the order of its paths."""
        parent = self._test_dir if split == "test" and self._test_dir else self._train_dir
        files = []
        for label, name in enumerate(self.class_names):
            if parent == self._test_dir and not (parent / name).is_dir():
                continue  # the test set may lack a class
            leads_out = parent.is_symlink() or (parent / name).is_symlink()
            for path in self._list(parent / name):
                try:
                    stat = path.stat()
                except OSError as error:  # a link to nowhere
                    raise UserError(f"{path} cannot be read: {error.strerror}") from error
                self._check_place(path, is_link=leads_out or path.is_symlink())
                relative = path.relative_to(self.root).as_posix()
                files.append(ImageFile(relative, label, stat.st_size, stat.st_mtime_ns))
        if self._test_dir:
            return files
        labels = torch.tensor([file.label for file in files])
        try:
            train, test = stratified_split(
                labels,
                self.test_fraction,
                "test split",
                self.split_seed,
                class_names=self.class_names,
            )
        except ValueError as error:
            raise UserError(str(error), "add images to this class or delete it") from error
        return [files[index] for index in (test if split == "test" else train).tolist()]

    def _check_place(self, path: Path, *, is_link: bool) -> None:
        """Refuse a link out of the root, which a stranger could lead to any file of a machine."""
        if is_link and not self.allow_links:
            target = path.resolve()
            if not target.is_relative_to(self.root.resolve()):
                raise UserError(
                    f"{path} is a link to {target}, outside of {self.root}",
                    "copy the file, or give --data.allow_links true if all links are yours",
                )

    def _cache_stem(self, split: str) -> str:
        held_out = "" if self._test_dir else f"heldout_{self.test_fraction}_{self.split_seed}_"
        channels, size, _ = self.image_shape
        return f"{held_out}{split}_{size}x{size}x{channels}"

    def _cache_path(self, folder: Path, split: str) -> Path:
        # the hash is in the name, so two runs that see other files never share half a cache
        return folder / f"{self._cache_stem(split)}.{self._hashes[split][:16]}.npy"

    def _cache_folders(self) -> Iterator[Path]:
        """Where decoded images may lie, the most wanted place first."""
        own = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        if chosen := os.environ.get("CNN_LIGHTNING_CACHE"):
            yield Path(chosen) / own
        yield self.root / CACHE_FOLDER
        yield Path.home() / ".cache" / "cnn-lightning" / own

    def _open_cache(self, split: str) -> Tensor | None:
        shape = (len(self._files[split]), *self.image_shape)
        for folder in self._cache_folders():
            # absent, or damaged: made anew
            images = map_array(self._cache_path(folder, split), np.uint8, shape[0])
            if images is not None and images.shape == shape:
                return torch.from_numpy(images)
        return None

    def _build_cache(self, split: str) -> Tensor:
        folder = next((place for place in self._cache_folders() if _is_writable(place)), None)
        if folder is None:
            raise UserError(
                f"there is no place for the decoded images of {self.root}",
                "set CNN_LIGHTNING_CACHE to a folder that can be written",
            )
        files, stem = self._files[split], self._cache_stem(split)
        path, manifest = self._cache_path(folder, split), folder / f"{stem}.json"
        say(_reason(manifest, files) + f": decoding {len(files):,} images to {path}")
        shape = (len(files), *self.image_shape)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        try:
            # not a map while it is written: a full disk kills a process that writes to a map
            decoded = self._decode([file.name for file in files])
            with atomic_writer(path) as stream, closing(decoded):
                np.lib.format.write_array_header_1_0(stream, header)
                for chunk in decoded:
                    stream.write(chunk.data)
            write_text(manifest, json.dumps(files))
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror}",
                f"{np.prod(shape) / 1e9:.1f} GB are needed there, or in $CNN_LIGHTNING_CACHE",
            ) from error
        images = self._open_cache(split)
        if images is None:
            raise UserError(f"{path} vanished while it was made", "start again")
        for old in folder.glob(f"{stem}.*.npy"):
            if old != path:
                with suppress(OSError):  # another run may be using or deleting it
                    old.unlink()
        return images

    def _decode(self, names: Sequence[str]) -> Generator[NDArray[np.uint8]]:
        """Images in order, in chunks of n×C×H×W; a few chunks are in memory at a time.

        Raises:
            UserError: Images cannot be read; all of them are counted, and the first ones named.
        """

        def decode(chunk: Sequence[str]) -> tuple[list[NDArray[np.uint8]], list[UserError]]:
            mode: Literal["RGB", "L"] = "RGB" if self.channels == 3 else "L"
            size = self.image_shape[1]
            images, errors = [], []
            for name in chunk:
                try:
                    image = read_image(self.root / name, mode=mode)
                except UserError as error:
                    errors.append(error)
                else:
                    images.append(fit_square(image, size).numpy())
            return images, errors

        damaged: list[UserError] = []

        # threads: Pillow decodes and scales without holding Python's lock
        pool = ThreadPoolExecutor(self.num_workers)
        pending: deque[Future[tuple[list[NDArray[np.uint8]], list[UserError]]]] = deque()
        progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        task = progress.add_task("decoding", total=len(names))
        try:
            with progress:
                for start in range(0, len(names), _CHUNK):
                    pending.append(pool.submit(decode, names[start : start + _CHUNK]))
                    is_last = start + _CHUNK >= len(names)
                    while len(pending) > (0 if is_last else 2 * self.num_workers):
                        images, errors = pending.popleft().result()
                        damaged += errors
                        progress.advance(task, len(images) + len(errors))
                        if not damaged:
                            yield np.stack(images)
            if damaged:
                raise _all_of(damaged)
        finally:
            pool.shutdown(cancel_futures=True)


def _all_of(errors: Sequence[UserError]) -> UserError:
    """One error that names the first of several, and counts the rest."""
    if len(errors) == 1:
        return errors[0]
    named = "; ".join(error.what for error in errors[:_MAX_NAMED])
    more = f" and {len(errors) - _MAX_NAMED} more" if len(errors) > _MAX_NAMED else ""
    return UserError(f"{len(errors)} images: {named}{more}", "repair these files or delete them")


def _folders_in(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _reason(manifest: Path, files: Sequence[ImageFile]) -> str:
    """Why images are decoded, held against what was decoded last."""
    try:
        old = {name: tuple(rest) for name, *rest in json.loads(manifest.read_text())}
    except (OSError, ValueError, TypeError):
        return "first use"
    new = {name: tuple(rest) for name, *rest in files}
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return f"{len(new.keys() - old)} added, {len(old.keys() - new)} removed, {changed} changed"
