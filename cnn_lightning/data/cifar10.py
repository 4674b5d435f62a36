"""CIFAR-10, read from the files of its authors without running what is in them."""

import pickle
import tarfile
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from cnn_lightning.data.base import Augment, ImageDataModule, Split
from cnn_lightning.data.download import download, md5_of, splits_to_prepare
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.files import write_bytes


class CIFAR10DataModule(ImageDataModule):
    """Small colour photographs of ten kinds of things (Krizhevsky 2009).

    The files of the "python version" are looked for in `root/cifar-10-batches-py`, and downloaded
    if they are not there. They are pickles: each is compared with its MD5 sum before every read.

    Args:
        **kwargs: As for `ImageDataModule`.

    Example:
        >>> data = CIFAR10DataModule(root="elsewhere", augment="crop_flip")  # reads nothing yet
        >>> data.num_classes, data.class_names[3]
        (10, 'cat')
    """

    class_names = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    image_shape = (3, 32, 32)
    # measured over the 50,000 training images
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    default_augment: Augment = "crop_flip"

    folder: ClassVar[str] = "cifar-10-batches-py"
    # address and sums: torchvision.datasets.CIFAR10
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    archive_md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"
    files: ClassVar[dict[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",  # class names; for other programs
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @override
    def prepare_data(self) -> None:
        folder = self.root / self.folder
        names = [name for split in splits_to_prepare(self.trainer) for name in _names(split)]
        if all((folder / name).is_file() for name in names):
            return
        archive = self.url.rpartition("/")[2]
        remedy = (
            f"put the file into {self.root}, or set root (or $CNN_LIGHTNING_DATA) to the folder "
            f"that holds it or {self.folder}"
        )
        path = download(archive, [self.url], self.archive_md5, self.root, remedy)
        with tarfile.open(path) as tar:
            for name in self.files:
                member = tar.extractfile(f"{self.folder}/{name}")
                if member is not None and not (folder / name).exists():
                    write_bytes(folder / name, member.read())

    @override
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        names = _names(split)
        pixels, labels = self._read_batch(names[0])
        # all files hold as many; joined at the end, images would be in memory twice
        images = np.empty((len(names), *pixels.shape), np.uint8)
        images[0] = pixels
        for place, name in enumerate(names[1:], 1):
            images[place], more = self._read_batch(name)
            labels += more
        return torch.from_numpy(images.reshape(-1, *self.image_shape)), torch.tensor(labels)

    def _read_batch(self, name: str) -> tuple[NDArray[np.uint8], list[int]]:
        """Images n×C×H×W, which may not be written to, and their labels."""
        path = self.root / self.folder / name
        try:
            # not read as a whole: it would be in memory twice while it is unpickled
            with path.open("rb") as stream:
                found = md5_of(stream)
                stream.seek(0)
                batch = unpickle_batch(stream) if found == self.files[name] else None
        except OSError as error:
            kind = UserError if path.exists() else MissingDataError
            raise kind(
                f"{path} cannot be read: {error.strerror}",
                "set root to where it is, or call prepare_data() to download it",
            ) from error
        if batch is None:
            raise UserError(
                f"{path} is not the file of CIFAR-10 (its MD5 is not {self.files[name]}); not read",
                "delete it and run again to download it, or use another copy",
            )
        return batch[b"data"].numpy().reshape(-1, *self.image_shape), batch[b"labels"]


def _names(split: Split) -> tuple[str, ...]:
    return ("test_batch",) if split == "test" else tuple(f"data_batch_{i}" for i in range(1, 6))


class PickledArray:
    """Stands for numpy's array, and for its dtype, while a pickle is read: keeps what is said."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep what numpy would build the array or dtype from."""
        self.state = state

    def numpy(self) -> NDArray[np.uint8]:
        """The array, read-only, from its state: version, shape, dtype, column order and bytes."""
        _, shape, dtype, is_fortran, content = self.state
        if dtype.args[0] != b"u1" or is_fortran:
            raise pickle.UnpicklingError("not an array of bytes in row order")
        return np.frombuffer(content, np.uint8).reshape(shape)


class BatchUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, strings, numbers and numpy arrays; refuses everything else.

    Arrays become `PickledArray`s, so that not even numpy's code runs on what the file says.
    """

    _allowed = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    @override
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._allowed:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed")
        return PickledArray


def unpickle_batch(stream: BinaryIO) -> dict[bytes, Any]:
    """Read one pickle of CIFAR-10, written by Python 2, so that its strings are bytes.

    Raises:
        pickle.UnpicklingError: It calls for anything but numpy arrays.
    """
    batch: dict[bytes, Any] = BatchUnpickler(stream, encoding="bytes").load()
    return batch
