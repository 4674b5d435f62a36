"""Run folders are found, numbered and resumed by their names alone."""

from pathlib import Path

from cnn_lightning.runs import RunFolder, find_checkpoint, folder_of, new_version, versions


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


def test_the_newest_version_that_has_the_checkpoint_is_found(tmp_path: Path) -> None:
    make(RunFolder(tmp_path / "run/version_0"), "best.ckpt", "last.ckpt")
    newer = make(RunFolder(tmp_path / "run/version_1"), "last.ckpt")
    make(RunFolder(tmp_path / "run/version_2"))
    assert find_checkpoint(tmp_path, "run", "last") == newer.checkpoints / "last.ckpt"
    assert find_checkpoint(tmp_path, "run", "best") == (
        tmp_path / "run/version_0/checkpoints/best.ckpt"
    )
    assert find_checkpoint(tmp_path, "nowhere", "best") is None


def test_a_checkpoint_knows_its_folder(tmp_path: Path) -> None:
    folder = make(RunFolder(tmp_path / "run/version_0"), "last.ckpt")
    found = folder_of(folder.checkpoints / "last.ckpt")
    assert found == folder
    assert found is not None
    assert (found.name, found.log_dir) == ("run", tmp_path)
    assert folder_of(tmp_path / "elsewhere.ckpt") is None


def test_configs_of_a_start_and_of_each_resume(tmp_path: Path) -> None:
    folder = make(RunFolder(tmp_path / "run/version_0"))
    assert folder.newest_config() is None
    for name in ("config.yaml", "config-resume-1.yaml", "config-resume-2.yaml"):
        assert folder.next_config().name == name
        folder.next_config().touch()
    newest = folder.newest_config()
    assert newest is not None
    assert newest.name == "config-resume-2.yaml"
