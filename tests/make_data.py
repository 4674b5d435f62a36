"""Tiny seeded data sets and weights in the real on-disk formats; images differ by class."""

import gzip as gzip_format
import hashlib
import struct
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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


def draw_weights(name: str) -> dict[str, torch.Tensor]:
    """Random weights of a network of torchvision, whose layers begin with about equal outputs.

    Of a matrix with many millions of values one row is drawn, which is every other row too.
    """
    with torch.device("meta"):
        # these two would warn of what is drawn for seconds
        more = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        network = models.get_model(name, weights=None, **more)
    drawn = {}
    for key, value in network.state_dict().items():
        rows = 1 if value.numel() > 4_000_000 else value.shape[0] if value.ndim else 1
        if value.ndim > 1:
            kernels = torch.randn(rows, *value.shape[1:]) * (2 / value[0].numel()) ** 0.5
            drawn[key] = kernels.expand(value.shape)
        else:  # of batch norm, or a bias
            is_one = key.endswith(("weight", "running_var"))
            drawn[key] = torch.full(value.shape, int(is_one), dtype=value.dtype)
    return drawn


def make_weights(name: str) -> dict[str, torch.Tensor]:
    """Make a file of random weights where torchvision looks for its own; what is in it."""
    url = models.get_model_weights(name)["DEFAULT"].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(url).path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    state = draw_weights(name)
    torch.save(state, path)
    return state
