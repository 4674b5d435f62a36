"""A full disk ends a run with a clear line, and it goes on once there is room."""

import errno
import os
import re
import resource
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from killing import FROZEN, LENET, Process, Recipe, different, make_recipe, write_recipe
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

from cnn_lightning.callbacks import LastCheckpoint
from cnn_lightning.checkpoint_io import AtomicCheckpointIO
from cnn_lightning.files import load_checkpoint
from cnn_lightning.runs import RunFolder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return make_recipe(LENET, tmp_path_factory.mktemp("stress"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount")
    options = [mount, "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    done = subprocess.run(options, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def at_step(step: int, action: Any) -> None:
    """A hook: something happens once a step is done, before what is written then."""
    before = LastCheckpoint.on_train_batch_end

    def after(callback: LastCheckpoint, trainer: Any, *args: Any) -> None:
        if trainer.global_step == step:
            action()
        before(callback, trainer, *args)

    LastCheckpoint.on_train_batch_end = after  # type: ignore[method-assign]  # in its process


def fill(place: Path, left: int) -> None:
    """Fill a disk but for some bytes."""
    content = bytes(shutil.disk_usage(place).free - left)
    (place / "filler").write_bytes(content)


def forbid_large_files(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


def forbid_checkpoints() -> None:
    """Let the system cut off the next checkpoint, and nothing before it."""
    before = AtomicCheckpointIO.save_checkpoint

    def cut_off(*args: Any, **kwargs: Any) -> None:
        forbid_large_files(100_000)
        before(*args, **kwargs)

    AtomicCheckpointIO.save_checkpoint = cut_off  # type: ignore[method-assign]  # in its process


def break_event_files() -> None:
    """Let the thread that writes TensorBoard's files fail as on a full disk."""

    def broken(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    LocalFileSystem.append = broken


def forbid_names(ending: str) -> None:
    """Let files of a kind find no room."""
    before = Path.replace

    def replace(part: Path, path: Path) -> Path:
        if path.name.endswith(ending):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return before(part, path)

    Path.replace = replace  # type: ignore[assignment,method-assign]  # in its process


def read_failure(process: Process, folder: RunFolder) -> tuple[str, list[str]]:
    """What a process that failed in `folder` told, and the command that it gave."""
    assert "Traceback" not in process.output
    assert "Exception ignored" not in process.output
    told, remedy = process.output.splitlines()[-2:]
    assert told.startswith("error: ")
    assert remedy.startswith("  make room for it; ")
    kept, _, command = remedy.partition("o on with: cnn-lightning ")
    last = folder.checkpoints / "last.ckpt"
    step = load_checkpoint(last)["global_step"]
    assert f"{last} is of step {step}" in kept
    assert not list(folder.path.rglob("*.part"))
    return told, shlex.split(command)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(0, id="nothing left"),
        pytest.param(100_000, id="a part fits", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_leaves_the_earlier_checkpoint(
    left: int, small_disk: Path, recipe: Recipe
) -> None:
    log_dir = str(small_disk / "logs")
    (small_disk / "logs").mkdir()
    hook = partial(at_step, 15, partial(fill, small_disk, left))
    folder = RunFolder(small_disk / "logs/full/version_0")
    process = recipe.start("full", "--log_dir", log_dir, hook=hook)
    assert process.wait() == 1, process.output
    told, command = read_failure(process, folder)
    assert "No space left on device" in told
    assert str(folder.path) in told
    (small_disk / "filler").unlink()
    process = Process(command, recipe.log_dir / "full.txt")
    assert process.wait() == 0, process.output
    assert different(recipe.folder("whole"), folder) == []


@pytest.mark.parametrize(
    ("action", "named"),
    [
        pytest.param(forbid_checkpoints, "checkpoints/last.ckpt", id="checkpoint"),
        pytest.param(
            partial(forbid_names, "metrics.csv"),
            "metrics.csv",
            id="metrics",
            marks=pytest.mark.slow,
        ),
        pytest.param(partial(forbid_names, ".png"), ".png", id="pictures", marks=pytest.mark.slow),
        pytest.param(break_event_files, "events.out", id="event files"),
    ],
)
def test_whatever_cannot_be_written_is_named(action: Any, named: str, recipe: Recipe) -> None:
    run = f"unwritten_{named.replace('/', '_').strip('.')}"
    process = recipe.start(run, hook=partial(at_step, 14, action))
    assert process.wait() == 1, process.output
    told, command = read_failure(process, recipe.folder(run))
    assert named in told
    process = Process(command, recipe.log_dir / f"{run}.txt")
    assert process.wait() == 0, process.output
    assert different(recipe.folder("whole"), recipe.folder(run)) == []


def test_a_disk_that_is_full_before_the_first_step(tmp_path: Path) -> None:
    frozen = write_recipe(FROZEN, tmp_path)
    half = 270 * 1024 * 4 // 2  # of the features of 270 images; no other file is as large
    process = frozen.start("full", hook=partial(forbid_large_files, half))
    assert process.wait() == 1, process.output
    told, remedy = process.output.splitlines()[-2:]
    assert re.search(r"train-\w+\.npy could not be written: File too large", told), told
    command = shlex.join(frozen.arguments("full"))
    assert remedy.endswith(f"nothing to go on from. Start again with: cnn-lightning {command}")
    assert "Traceback" not in process.output
    assert list(frozen.folder("full").features.iterdir()) == []
