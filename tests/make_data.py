"""Tiny seeded data sets and weights in the real on-disk formats; images differ by class."""

import errno
import gzip as gzip_format
import hashlib
import os
import struct
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import models


def draw_classes(
    labels: Tensor, shape: tuple[int, int, int], num_classes: int, draws: torch.Generator
) -> Tensor:
    """Noise with a bright stripe whose row, and by turns colour, tells the class: N×C×H×W uint8."""
    channels, height, _ = shape
    images = torch.randint(0, 90, (len(labels), *shape), generator=draws)
    for image, label in zip(images, labels.tolist(), strict=True):
        first = label * height // num_classes
        last = max((label + 1) * height // num_classes, first + 1)
        image[label % channels, first:last] += 150
    return images.to(torch.uint8)


def write_idx(path: Path, array: Tensor, *, gzip: bool = False) -> Path:
    header = struct.pack(f">{1 + array.dim()}I", 0x800 + array.dim(), *array.shape)
    content = header + array.to(torch.uint8).numpy().tobytes()
    if gzip:
        path, content = path.with_name(f"{path.name}.gz"), gzip_format.compress(content, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_mnist(
    root: Path,
    num_train: int = 200,
    num_test: int = 50,
    *,
    gzip: bool = False,
    variant: Literal["mnist", "fashion"] = "mnist",
    seed: int = 0,
) -> Path:
    """Write the four IDX files where torchvision would and return their folder."""
    folder = root / {"mnist": "MNIST", "fashion": "FashionMNIST"}[variant] / "raw"
    draws = torch.Generator().manual_seed(seed)
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        labels = torch.arange(count) % 10
        images = draw_classes(labels, (1, 28, 28), 10, draws)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images[:, 0], gzip=gzip)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels, gzip=gzip)
    return folder


def pickle_as_python_2(value: Any) -> bytes:
    """Pickle plain values and uint8 tensors as Python 2 and its numpy did.

    CIFAR-10's files were written so: strings of bytes, numpy's modules under their old names, and
    0 and 1 for truth, all of which today's pickle module writes otherwise.
    """
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case int():
            return b"J" + struct.pack("<i", value)
        case bytes() if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(_opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case dict():
            pairs = (_opcodes(key) + _opcodes(item) for key, item in value.items())
            return b"}(" + b"".join(pairs) + b"u"
        case Tensor():
            # R calls the function with the arguments after it; b sets the state of the result
            dtype = b"cnumpy\ndtype\n" + _opcodes((b"u1", 0, 1)) + b"R"
            dtype += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
            start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            start += _opcodes((0,)) + _opcodes(b"b") + b"tR"
            shape, content = tuple(value.shape), value.numpy().tobytes()
            not_fortran = b"\x89"
            state = _opcodes(1) + _opcodes(shape) + dtype + not_fortran + _opcodes(content)
            return start + b"(" + state + b"tb"
        case _:
            raise TypeError(f"cannot pickle {type(value).__name__}")


def make_cifar10(root: Path, per_batch: int = 40, *, seed: int = 0) -> dict[str, str]:
    """Write the seven files of CIFAR-10 and return their MD5 sums by name."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    draws = torch.Generator().manual_seed(seed)
    batches: dict[str, dict[bytes, Any]] = {
        "batches.meta": {b"num_cases_per_batch": per_batch, b"label_names": [], b"num_vis": 3072}
    }
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = torch.arange(per_batch) % 10
        batches[name] = {
            b"batch_label": name.encode(),
            b"labels": labels.tolist(),
            b"data": draw_classes(labels, (3, 32, 32), 10, draws).flatten(1),
            b"filenames": [f"{name}_{i}.png".encode() for i in range(per_batch)],
        }
    sums = {}
    for name, batch in batches.items():
        content = pickle_as_python_2(batch)
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    return sums


def make_folder(
    root: Path,
    classes: Sequence[str] = ("cat", "dog"),
    per_class: int = 12,
    size: tuple[int, int] = (40, 48),
    *,
    test: bool = True,
    seed: int = 0,
) -> Path:
    """Write `root/train/<class>/*`, PNG and JPEG by turns, and `root/test` likewise; return root.

    `size` is height and width.
    """
    draws = torch.Generator().manual_seed(seed)
    for split in ("train", "test")[: 1 + test]:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            labels = torch.full((per_class,), label)
            images = draw_classes(labels, (3, *size), len(classes), draws)
            for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
                ending = ("png", "jpg")[index % 2]
                Image.fromarray(image).save(folder / f"{name}_{index:03}.{ending}")
    return root


def close_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a folder that cannot be listed, also by a user who may read everything."""
    folder.mkdir(parents=True)
    scandir = os.scandir

    def guarded(path: Any = ".") -> Any:
        if str(path) == str(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


def draw_weights(name: str, *, repeated: bool = False) -> dict[str, torch.Tensor]:
    """Random weights of a network of torchvision, whose layers begin with about equal outputs.

    Args:
        name: The network's name in torchvision.
        repeated: Whether the values of kernels and matrices repeat, as those of the largest always
            do, so that they are drawn in no time and a file of them is small.
    """
    # these two warn without it
    more = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    with torch.device("meta"):  # not drawn twice, as layers and their networks do
        network = models.get_model(name, weights=None, **more)
    draws = torch.Generator().manual_seed(0)
    return {key: _draw(key, one, draws, repeated) for key, one in network.state_dict().items()}


def make_weights(name: str, *, repeated: bool = False) -> dict[str, torch.Tensor]:
    """Make a file of `draw_weights` where torchvision looks for its own; what is in it."""
    url = models.get_model_weights(name)["DEFAULT"].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(url).path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    state = draw_weights(name, repeated=repeated)
    torch.save(state, path)
    return state


def _draw(key: str, like: Tensor, draws: torch.Generator, repeated: bool) -> Tensor:
    """Random kernels and matrices (He et al. 2015, arXiv:1502.01852), the rest as it begins."""
    if like.dim() < 2:
        is_scale = key.endswith(("weight", "running_var"))
        return torch.full(like.shape, int(is_scale), dtype=like.dtype)
    std = (2 / like[0].numel()) ** 0.5
    if not repeated and like.numel() < 4_000_000:
        return torch.empty(like.shape).normal_(0, std, generator=draws)
    # neighbours share all but one of their values
    strides = range(like.dim(), 0, -1)
    count = 1 + sum(stride * (n - 1) for stride, n in zip(strides, like.shape, strict=True))
    values = torch.empty(count).normal_(0, std, generator=draws)
    return values.as_strided(like.shape, tuple(strides))
