"""The base of data modules whose images are files with a label each."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.choices import check_choice
from cnn_lightning.data.base import ImageDataModule, Split, Stage
from cnn_lightning.data.cache import DecodedImages
from cnn_lightning.data.listing import ImageFile
from cnn_lightning.errors import UserError
from cnn_lightning.images import read_size
from cnn_lightning.randomness import stratified_split

Channels = Literal[1, 3]
# over the 1.28 million training images of ImageNet-1k, as in torchvision's transforms and recipes
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FALLBACK_SIZE = 224


class ListedImagesDataModule(ImageDataModule):
    """Image files and their labels; a subclass says which.

    Images are scaled and cropped to one square size (`fit_image`). They are decoded once, into
    `root/.cnn_lightning_cache` (or `$CNN_LIGHTNING_CACHE` if set, or `~/.cache/cnn-lightning` if
    `root` is read-only), and anew when files appear, vanish, or change in size or time.

    A subclass sets `class_names`, and implements `list_files` and `first_files`.

    Args:
        root: Folder of the data.
        image_size: Height and width that images are brought to. `None` takes those of the
            checkpoint, if there is one, or the size of the first image of each class if they share
            one square size, and else 224.
        channels: 3 for colour, 1 for grey.
        mean: Per channel, in units of 0..1; `None` takes ImageNet's (of use with pretrained
            weights, near enough without), for grey 0.5.
        std: As `mean`.
        test_fraction: Share of each class held out as test set, 0..1, where there is none;
            `split_seed` and the names of the files decide which. A file more or less in a class
            moves at most one other.
        num_workers: Threads or processes that decode; `None` takes one per core.
        allow_links: Whether files may lie outside of `root`; else they are refused.
        **kwargs: As for `ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str,
        image_size: int | None = None,
        channels: Channels = 3,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        test_fraction: float = 0.1,
        num_workers: int | None = None,
        allow_links: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        check_choice("channels", channels, Channels)
        if image_size is not None and image_size < 1:
            raise UserError(f"image_size is {image_size}", "give a number of pixels")
        if not 0 < test_fraction < 1:
            raise UserError(f"test_fraction is {test_fraction}", "give a share between 0 and 1")
        self.image_size = image_size
        self._is_expected = False
        self.channels = channels
        usual = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
        self.mean, self.std = (
            tuple(map(float, default if given is None else given))  # given as an array, perhaps
            for given, default in zip((mean, std), usual, strict=True)
        )
        if len(self.mean) != channels or len(self.std) != channels or min(self.std) <= 0:
            raise UserError(
                f"mean {self.mean} and std {self.std} do not fit {channels} channel(s)",
                "give one number per channel to each, std above 0",
            )
        self.test_fraction = test_fraction
        self.num_workers = check_workers(num_workers)
        self.allow_links = allow_links
        self._decoded: dict[Split, DecodedImages] = {}

    @abstractmethod
    def list_files(self, split: Split) -> list[ImageFile]:
        """The files of one split in order; without a test set, `train` has them all."""

    @abstractmethod
    def first_files(self) -> list[Path]:
        """One training image of each class."""

    @property
    @abstractmethod
    def has_test(self) -> bool:
        """Whether there is a test set; else `test_fraction` of the files becomes one."""

    @property
    def cache_name(self) -> str:
        """What its decoded images begin their name with, if others share the root."""
        return ""

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """C, H, W. The headers of one image per class are read when this is first asked for."""
        size = self.image_size
        if size is None:
            sizes = {read_size(path) for path in self.first_files()}
            height, width = sizes.pop()
            size = height if not sizes and height == width else _FALLBACK_SIZE
        return self.channels, size, size

    @property
    @override
    def shape_is_guessed(self) -> bool:
        return self.image_size is None and not self._is_expected

    @override
    def expect_shape(self, image_shape: tuple[int, int, int]) -> None:
        _, height, width = image_shape
        if self.image_size is None and height == width:
            self.image_shape = self.channels, height, width
            self._is_expected = True

    @override
    def prepare_data(self) -> None:
        # on one process per machine, before `setup`: the others find the images decoded
        if self.trainer is not None:
            self.load("test" if self.trainer.state.fn in ("test", "predict") else "train")

    @override
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        files = self.list_files(split if self.has_test else "train")
        if not self.has_test:
            files = [files[index] for index in self._hold_out(files, split)]
        self._decoded[split] = decoded = DecodedImages(
            self.root, self._cache_stem(split), files, self.class_names, self.image_shape
        )
        return decoded.load(self.num_workers), _labels_of(files)

    @override
    def stage_indices(self, stage: Stage) -> Tensor:
        if stage != "test" and not self.has_test:
            counts = self.load("train")[1].bincount(minlength=self.num_classes)
            for name, count in zip(self.class_names, counts.tolist(), strict=True):
                if count == 1:
                    raise UserError(
                        f"class {name} has one image left to train and validate on after test "
                        "images were held out",
                        "a class needs three images or more: add some, lower test_fraction, or "
                        "delete the class",
                    )
        return super().stage_indices(stage)

    @override
    def image_names(self, split: Split) -> Sequence[str]:
        self.load(split)
        return [file.name for file in self._decoded[split].files]

    @override
    def fingerprint(self, split: Split) -> str:
        self.load(split)
        return self._decoded[split].fingerprint

    def _hold_out(self, files: Sequence[ImageFile], split: Split) -> list[int]:
        labels = _labels_of(files)
        key = ("test split", self.split_seed)
        try:
            train, test = stratified_split(
                labels,
                self.test_fraction,
                *key,
                class_names=self.class_names,
                names=[file.name for file in files],
            )
        except ValueError as error:
            raise UserError(str(error), "add images to this class or delete it") from error
        places: list[int] = (test if split == "test" else train).tolist()
        return places

    def _cache_stem(self, split: str) -> str:
        held_out = "" if self.has_test else f"heldout_{self.test_fraction}_{self.split_seed}_"
        channels, size, _ = self.image_shape
        return f"{self.cache_name}{held_out}{split}_{size}x{size}x{channels}"


def _labels_of(files: Sequence[ImageFile]) -> Tensor:
    # of no files the type would be another
    return torch.tensor([file.label for file in files], dtype=torch.int64)


def check_workers(num_workers: int | None) -> int:
    """Threads or processes to decode with, one per core if none are given.

    Raises:
        UserError: There would be none.
    """
    if num_workers is not None and num_workers < 1:
        raise UserError(f"num_workers is {num_workers}", "give a number, or null for one per core")
    return num_workers or os.cpu_count() or 1
