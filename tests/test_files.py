"""Files are whole or absent, and reading one never runs code."""

import pickle
from pathlib import Path

import pytest
import torch

from cnn_lightning.errors import UserError
from cnn_lightning.files import atomic_writer, load_checkpoint, write_text


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


@pytest.mark.parametrize("content", [[1, 2], "text", 3])
def test_what_is_no_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "some.ckpt")
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "some.ckpt")
