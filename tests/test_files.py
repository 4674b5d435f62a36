"""Files are whole or absent, and reading one never runs code."""

import errno
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from cnn_lightning.errors import DamagedFileError, UserError
from cnn_lightning.files import (
    atomic_writer,
    explain_disk_failure,
    explain_no_access,
    load_checkpoint,
    part_of,
    remove_parts,
    write_text,
)


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "whole")

    def fail() -> None:
        with atomic_writer(path) as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"

    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail() -> None:
        with atomic_writer(path):
            torch.save({"weight": torch.zeros(1000)}, Full())  # torch wraps it in a RuntimeError

    with pytest.raises(OSError, match=r"some\.ckpt") as caught:
        fail()
    told = str(explain_disk_failure(caught.value))
    assert told == f"{path} could not be written: No space left on device\n  make room for it"


def test_a_folder_that_takes_no_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "afile").touch()
    path = tmp_path / "afile/run/config.yaml"
    with pytest.raises(NotADirectoryError) as caught:
        write_text(path, "text")
    assert str(explain_no_access(caught.value)) == (
        f"{path} cannot be opened: Not a directory\n"
        "  give a folder you may write to: --log_dir, or change who may use it"
    )
    assert explain_disk_failure(caught.value) is None

    def refuse(path: Path, *_: object) -> None:  # root may open everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError) as refused:
        write_text(tmp_path / "table.csv", "text")
    told = str(explain_no_access(refused.value))
    assert f"{tmp_path}/table.csv cannot be opened: Permission denied" in told
    assert explain_no_access(PermissionError(errno.EACCES, "a port")) is None


def test_other_errors_are_no_full_disk() -> None:
    error = ValueError("first")
    error.__context__ = KeyError("second")
    error.__context__.__context__ = error  # a ring
    assert explain_disk_failure(error) is None
    assert explain_disk_failure(FileNotFoundError(errno.ENOENT, "no such file")) is None


def test_parts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    kept = tmp_path / "figures/picture.png"
    for path in (part_of(kept), part_of(tmp_path / "metrics.csv"), kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_parts(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": Attack()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"bad\.ckpt"):
        load_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "touched").exists()
    pickle.loads(pickle.dumps(Attack()))  # the control: it would have run
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(UserError, match=r"some\.ckpt"):
        load_checkpoint(path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["state_dict"]["weight"].any()  # torch says nothing
    with pytest.raises(DamagedFileError, match=r"some\.ckpt is damaged"):
        load_checkpoint(path)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(DamagedFileError, match=r"bomb\.ckpt"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], "text", 3])
def test_what_is_no_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "some.ckpt")
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "some.ckpt")
