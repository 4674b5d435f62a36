import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from make_data import make_cifar10, pickle_as_python_2

from cnn_lightning.data.cifar10 import CIFAR10DataModule, unpickle_batch
from cnn_lightning.errors import UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny CIFAR-10 whose sums the data module takes for the true ones."""
    monkeypatch.setattr(CIFAR10DataModule, "files", make_cifar10(tmp_path))
    return tmp_path


class Malicious:
    """Touches a file when unpickled by the standard unpickler."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.open, (str(self.path), os.O_CREAT)


def test_names_and_sums_are_torchvisions() -> None:
    theirs = torchvision.datasets.CIFAR10
    meta = (theirs.meta["filename"], theirs.meta["md5"])
    assert CIFAR10DataModule.files == dict([*theirs.train_list, *theirs.test_list, meta])
    assert CIFAR10DataModule.url == theirs.url
    assert CIFAR10DataModule.archive_md5 == theirs.tgz_md5


# the files are as old as they say: numpy 2.4 warns of how Python 2's numpy wrote a dtype
@pytest.mark.filterwarnings("ignore:dtype\\(\\).*align")
def test_reads_what_the_standard_unpickler_reads(root: Path) -> None:
    data = CIFAR10DataModule(root=str(root))
    for split, names in {
        "train": [f"data_batch_{i}" for i in range(1, 6)],
        "test": ["test_batch"],
    }.items():
        batches = [
            pickle.loads((root / data.folder / name).read_bytes(), encoding="bytes")
            for name in names
        ]
        images, labels = data.read("train" if split == "train" else "test")
        assert images.dtype == torch.uint8
        assert images.shape == (40 * len(names), 3, 32, 32)
        reference = torch.cat([torch.from_numpy(batch[b"data"].copy()) for batch in batches])
        assert torch.equal(images.flatten(1), reference)
        assert labels.tolist() == [label for batch in batches for label in batch[b"labels"]]


def test_only_the_files_of_the_split_are_needed(root: Path) -> None:
    for name in ("data_batch_1", "data_batch_4", "batches.meta"):
        (root / "cifar-10-batches-py" / name).unlink()
    data = CIFAR10DataModule(root=str(root))
    assert len(data.read("test")[0]) == 40
    with pytest.raises(UserError, match="data_batch_1 cannot be read"):
        data.read("train")


def test_a_pickle_with_another_sum_is_not_read(root: Path) -> None:
    path = root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(Malicious(root / "touched")))
    with pytest.raises(UserError, match="test_batch is not the file of CIFAR-10") as caught:
        CIFAR10DataModule(root=str(root)).read("test")
    assert "use another copy" in caught.value.remedy
    assert not (root / "touched").exists()


def test_the_sum_is_checked_before_every_read(root: Path) -> None:
    data = CIFAR10DataModule(root=str(root))
    data.read("test")
    path = root / data.folder / "test_batch"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="is not the file of CIFAR-10"):
        data.read("test")


def test_the_unpickler_refuses_everything_but_arrays(tmp_path: Path) -> None:
    attack = pickle.dumps(Malicious(tmp_path / "touched"), protocol=2)
    with pytest.raises(pickle.UnpicklingError, match="open is not allowed"):
        unpickle_batch(io.BytesIO(attack))
    assert not (tmp_path / "touched").exists()
    os.close(pickle.loads(attack))  # the attack works where nothing stops it
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "numpy\nload", "numpy.core.multiarray\nfrombuffer"]
)
def test_the_unpickler_refuses_other_functions(name: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        unpickle_batch(io.BytesIO(b"c" + name.encode() + b"\n."))


def test_a_failed_download_names_file_address_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    with pytest.raises(UserError) as caught:
        CIFAR10DataModule(root=str(tmp_path)).prepare_data()
    what, remedy = str(caught.value).splitlines()
    assert what.startswith(f"cannot download cifar-10-python.tar.gz from {CIFAR10DataModule.url}: ")
    assert f"put the file into {tmp_path}" in remedy


def test_an_archive_that_is_cut_off_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"half a file")
    with pytest.raises(UserError) as caught:
        CIFAR10DataModule(root=str(tmp_path)).prepare_data()
    md5 = CIFAR10DataModule.archive_md5
    assert caught.value.what.startswith(
        f"{archive} is cut off or another file (its MD5 is not {md5}); cannot download "
    )
    assert caught.value.remedy.startswith(f"delete it and put the file into {tmp_path}")
    assert archive.read_bytes() == b"half a file"


def test_an_archive_in_root_is_unpacked_and_nothing_fetched(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    archive = other / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    archive_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10DataModule, "archive_md5", archive_md5)
    monkeypatch.delattr("torchvision.datasets.utils.download_url")
    data = CIFAR10DataModule(root=str(other))
    data.prepare_data()
    assert {path.name for path in (other / data.folder).iterdir()} == set(data.files)
    assert torch.equal(data.read("train")[0], CIFAR10DataModule(root=str(root)).read("train")[0])
    archive.unlink()
    data.prepare_data()  # needs the archive no more


def test_the_standard_unpickler_reads_what_is_made_as_python_2() -> None:
    value = {b"name": b"x" * 300, b"short": [1, 2, -1], b"same": None}
    assert pickle.loads(pickle_as_python_2(value), encoding="bytes") == value


def test_mean_and_std_are_those_of_the_real_set() -> None:
    root = Path(__file__).parents[2] / "data"
    if not (root / "cifar-10-batches-py" / "data_batch_5").is_file():
        pytest.skip("the training images of CIFAR-10 are not on this machine")
    data = CIFAR10DataModule(root=str(root))
    std, mean = torch.std_mean(data.read("train")[0].double() / 255, dim=(0, 2, 3))
    # the constants have four digits
    assert mean.tolist() == pytest.approx(data.mean, abs=1e-4)
    assert std.tolist() == pytest.approx(data.std, abs=1e-4)
