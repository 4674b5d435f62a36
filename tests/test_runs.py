"""Run folders are found, numbered and resumed by their names alone."""

import os
from pathlib import Path

import pytest

from cnn_lightning.errors import UserError
from cnn_lightning.runs import (
    RunFolder,
    checkpoints_to_resume,
    claim_version,
    find_checkpoint,
    find_run,
    folder_of,
    new_version,
    versions,
)


def make(folder: RunFolder, *names: str) -> RunFolder:
    folder.checkpoints.mkdir(parents=True)
    for name in names:
        (folder.checkpoints / name).touch()
    return folder


def test_versions_count_up_by_number_and_not_by_name(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        make(RunFolder(tmp_path / f"run/version_{number}"))
    (tmp_path / "run/version_x").mkdir()
    assert [folder.path.name for folder in versions(tmp_path, "run")] == [
        "version_0",
        "version_2",
        "version_10",
    ]
    assert new_version(tmp_path, "run").path.name == "version_11"
    assert new_version(tmp_path, "other").path.name == "version_0"


def test_a_version_that_another_process_has_made_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    found = [new_version(tmp_path, "run") for _ in range(3)]  # before any of them is made
    claimed = [claim_version(folder) for folder in found]
    assert [folder.path.name for folder in claimed] == ["version_0", "version_1", "version_2"]
    assert all(folder.path.is_dir() for folder in claimed)


def test_the_newest_version_that_has_the_checkpoint_is_found(tmp_path: Path) -> None:
    make(RunFolder(tmp_path / "run/version_0"), "best.ckpt", "last.ckpt")
    newer = make(RunFolder(tmp_path / "run/version_1"), "last.ckpt")
    make(RunFolder(tmp_path / "run/version_2"))
    assert find_checkpoint(tmp_path, "run", "last") == newer.checkpoints / "last.ckpt"
    assert find_checkpoint(tmp_path, "run", "best") == (
        tmp_path / "run/version_0/checkpoints/best.ckpt"
    )
    assert find_checkpoint(tmp_path, "nowhere", "best") is None


def test_the_newest_checkpoints_of_the_newest_version_are_resumed_first(tmp_path: Path) -> None:
    make(RunFolder(tmp_path / "run/version_0"), "last.ckpt")
    newer = make(RunFolder(tmp_path / "run/version_1"), "a.ckpt", "last.ckpt", "b.ckpt")
    make(RunFolder(tmp_path / "run/version_2"))
    for age, name in enumerate(("b.ckpt", "a.ckpt", "last.ckpt")):
        os.utime(newer.checkpoints / name, (1000 - age, 1000 - age))
    found = checkpoints_to_resume(tmp_path, "run")
    assert [path.name for path in found] == ["last.ckpt", "b.ckpt", "a.ckpt"]
    assert checkpoints_to_resume(tmp_path, "nowhere") == []


def test_a_checkpoint_knows_its_folder(tmp_path: Path) -> None:
    folder = make(RunFolder(tmp_path / "run/version_0"), "last.ckpt")
    found = folder_of(folder.checkpoints / "last.ckpt")
    assert found == folder
    assert found is not None
    assert (found.name, found.log_dir) == ("run", tmp_path)
    assert folder_of(tmp_path / "elsewhere.ckpt") is None


def test_a_checkpoint_knows_its_folder_wherever_it_is_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(RunFolder(tmp_path / "logs/run/version_0"), "last.ckpt")
    (tmp_path / "newest").symlink_to(folder.path)
    (tmp_path / "some.ckpt").symlink_to(folder.checkpoints / "last.ckpt")
    with monkeypatch.context() as context:
        for place, asked, found in (
            (folder.checkpoints, "last.ckpt", folder.path),
            (folder.path, "checkpoints/last.ckpt", folder.path),
            (folder.path.parent, "version_0/checkpoints/last.ckpt", folder.path),
            (tmp_path / "logs", "run/version_0/checkpoints/last.ckpt", Path("run/version_0")),
            (tmp_path, "newest/checkpoints/last.ckpt", Path("logs/run/version_0")),
            (tmp_path, "some.ckpt", Path("logs/run/version_0")),
            (folder.figures, "../../version_0/checkpoints/last.ckpt", folder.path),
        ):
            place.mkdir(exist_ok=True)
            context.chdir(place)
            assert folder_of(Path(asked)) == RunFolder(found), asked


def test_configs_of_a_start_and_of_each_resume(tmp_path: Path) -> None:
    folder = make(RunFolder(tmp_path / "run/version_0"))
    assert folder.newest_config() is None
    for name in ("config.yaml", "config-resume-1.yaml", "config-resume-2.yaml"):
        assert folder.next_config().name == name
        folder.next_config().touch()
    newest = folder.newest_config()
    assert newest is not None
    assert newest.name == "config-resume-2.yaml"


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    for place in ("lenet/version_2", "lenet/version_10", "vgg/version_0", "empty"):
        (tmp_path / "logs" / place).mkdir(parents=True)
    return tmp_path / "logs"


def test_a_run_is_found_by_name_by_folder_and_by_version(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = log_dir / "lenet/version_10"
    assert find_run(log_dir, "lenet").path == newest
    assert find_run(Path("elsewhere"), str(log_dir / "lenet")).path == newest
    assert find_run(log_dir, f"{log_dir}/lenet/version_2/").path == log_dir / "lenet/version_2"
    with monkeypatch.context() as context:
        context.chdir(log_dir / "lenet")
        for asked in ("version_2", "./version_2", "../lenet/version_2"):
            found = find_run(Path("logs"), asked)
            assert found.path.resolve() == log_dir / "lenet/version_2"
            assert found.name == "lenet"


@pytest.mark.parametrize(
    ("asked", "remedy"), [("lenett", "lenet"), ("x", "lenet, vgg"), ("empty", "lenet, vgg")]
)
def test_a_run_that_is_not_there_is_refused_and_others_named(
    asked: str, remedy: str, log_dir: Path
) -> None:
    with pytest.raises(UserError, match=f"there is no run {asked}") as caught:
        find_run(log_dir, asked)
    assert f"perhaps {remedy}" in caught.value.remedy
