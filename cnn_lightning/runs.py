"""Run folders: `logs/<run>/version_<n>` with its configs, checkpoints, metrics and figures."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cnn_lightning.errors import UserError
from cnn_lightning.locking import held_alone

_VERSION = re.compile(r"version_(\d+)")
_LOCK = ".lock"
_RESUMED = re.compile(r"config-resume-(\d+)\.yaml")


@dataclass(frozen=True)
class RunFolder:
    """One version of one run, and where its files are.

    Args:
        path: `<log_dir>/<run>/version_<n>`.
    """

    path: Path

    @property
    def name(self) -> str:
        """The run, the same for all its versions."""
        return self.path.parent.name

    @property
    def log_dir(self) -> Path:
        """What holds all runs."""
        return self.path.parent.parent

    @property
    def checkpoints(self) -> Path:
        """Folder of `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of the PNG files."""
        return self.path / "figures"

    @property
    def features(self) -> Path:
        """Folder of a frozen backbone's features."""
        return self.path / "features"

    @property
    def metrics(self) -> Path:
        """All logged numbers as a table."""
        return self.path / "metrics.csv"

    @property
    def config(self) -> Path:
        """What the run was started with; replays it by itself."""
        return self.path / "config.yaml"

    def checkpoints_to_resume(self) -> list[Path]:
        """`last.ckpt`, then the other checkpoints, newest first."""
        last = self.checkpoints / "last.ckpt"
        others = {path for path in self.checkpoints.glob("*.ckpt") if path.is_file()} - {last}
        newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        return [last, *newest_first] if last.is_file() else newest_first

    def resumed_configs(self) -> list[Path]:
        """What the run was resumed with, oldest first."""
        found = [(m, p) for p in self.path.glob("*.yaml") if (m := _RESUMED.fullmatch(p.name))]
        return [path for _, path in sorted(found, key=lambda pair: int(pair[0][1]))]

    def newest_config(self) -> Path | None:
        """What the run was started or last resumed with, `None` if nothing is left of it."""
        configs = [self.config, *self.resumed_configs()]
        return next((path for path in reversed(configs) if path.is_file()), None)

    def next_config(self) -> Path:
        """Where the config of the start, or of the next resume, goes."""
        if not self.config.exists():
            return self.config
        return self.path / f"config-resume-{len(self.resumed_configs()) + 1}.yaml"


def versions(log_dir: Path, run: str) -> list[RunFolder]:
    """All versions of a run, oldest first."""
    found = [(m, p) for p in (log_dir / run).glob("*") if (m := _VERSION.fullmatch(p.name))]
    return [RunFolder(path) for _, path in sorted(found, key=lambda pair: int(pair[0][1]))]


def new_version(log_dir: Path, run: str) -> RunFolder:
    """The next version of a run; nothing is created yet."""
    taken = [int(folder.path.name.removeprefix("version_")) for folder in versions(log_dir, run)]
    return RunFolder(log_dir / run / f"version_{max(taken, default=-1) + 1}")


def claim_version(folder: RunFolder) -> RunFolder:
    """Make the folder of a new version, or of the next if another process was faster.

    Args:
        folder: From `new_version`, any time ago.
    """
    while True:
        try:
            folder.path.mkdir(parents=True)
        except FileExistsError:
            folder = new_version(folder.log_dir, folder.name)
        else:
            return folder


def drop_version(folder: RunFolder) -> None:
    """Remove the folder of a run that was refused, unless there is more than its settings in it.

    Args:
        folder: From `claim_version`; no other process has it.
    """
    begun = {folder.config.name, folder.metrics.name, _LOCK}
    found = list(folder.path.iterdir())
    if any(one.name not in begun and ".tfevents." not in one.name for one in found):
        return
    with suppress(OSError):  # what refused the run is told, not this
        for one in found:
            one.unlink()
        folder.path.rmdir()
        if not any(folder.path.parent.iterdir()):
            folder.path.parent.rmdir()


@contextmanager
def going_on(folder: RunFolder) -> Iterator[None]:
    """Keep other processes from training in a run folder, until the block or this process ends.

    Raises:
        UserError: Another one trains in it.
    """
    refusal = UserError(
        f"run {folder.path} is going on in another process",
        "wait for its end or stop it, or begin another run without --ckpt_path",
    )
    with held_alone(folder.path / _LOCK, refusal):
        yield


def find_run(log_dir: Path, asked: str) -> RunFolder:
    """The run folder that a user means.

    Args:
        log_dir: What holds all runs.
        asked: A run folder (`logs/x/version_0`), or the folder (`logs/x`) or name (`x`) of a run,
            whose newest version is taken.

    Raises:
        UserError: There is no such run.
    """
    path = Path(asked)
    if path.parent.name in ("", ".."):
        path = path.resolve()  # else the run's name is not in it
    if _VERSION.fullmatch(path.name) and path.is_dir():
        return RunFolder(path)
    found = versions(Path(asked).parent, Path(asked).name) or versions(log_dir, asked)
    if found:
        return found[-1]
    near = similar_runs(log_dir, asked)
    raise UserError(
        f"there is no run {asked}, neither as a folder nor in {log_dir}",
        f"perhaps {', '.join(near)}" if near else "give a run folder, or --log_dir",
    )


def similar_runs(log_dir: Path, asked: str) -> list[str]:
    """Names of runs that are like one, at most 3; if there is none, of some that there are."""
    known = sorted(entry.name for entry in log_dir.glob("*") if versions(log_dir, entry.name))
    return difflib.get_close_matches(asked, known, n=3) or known[:8]


def find_checkpoint(log_dir: Path, run: str, which: str) -> Path | None:
    """`last.ckpt` or `best.ckpt` of the newest version that has one.

    Args:
        log_dir: What holds all runs.
        run: The run.
        which: `last` or `best`.
    """
    paths = [folder.checkpoints / f"{which}.ckpt" for folder in versions(log_dir, run)]
    return next((path for path in reversed(paths) if path.is_file()), None)


def checkpoints_to_resume(log_dir: Path, run: str) -> list[Path]:
    """Checkpoints of the newest version that has any, in the order to try them."""
    found = (folder.checkpoints_to_resume() for folder in reversed(versions(log_dir, run)))
    return next(filter(None, found), [])


def names_run(log_dir: Path, asked: str) -> bool:
    """Whether a word means a run and not a file: a folder, or the name of a run."""
    return Path(asked).is_dir() or (not Path(asked).exists() and bool(versions(log_dir, asked)))


def checkpoints_of(log_dir: Path, asked: str, which: str) -> list[Path]:
    """Checkpoints of a run that a user names, in the order to try them.

    Args:
        log_dir: What holds all runs.
        asked: As for `find_run`; of a run without a version, the newest with a checkpoint is taken.
        which: `last`, which may be an older one if that is damaged, or `best`.

    Raises:
        UserError: There is no such run, or it has no such checkpoint.
    """
    folder = find_run(log_dir, asked)
    is_version = Path(asked).resolve() == folder.path.resolve()
    for one in [folder] if is_version else reversed(versions(folder.log_dir, folder.name)):
        best = one.checkpoints / "best.ckpt"
        found = one.checkpoints_to_resume() if which == "last" else [best] * best.is_file()
        if found:
            return found
    raise UserError(
        f"{folder.path if is_version else folder.path.parent} has no {which}.ckpt",
        "give the path of a checkpoint",
    )


def folder_of(checkpoint: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, `None` if it lies elsewhere.

    Its path is as it was written if the run's name is in it, else relative to the current folder or
    absolute.
    """
    parent = checkpoint.resolve().parent
    if parent.name != "checkpoints" or not _VERSION.fullmatch(parent.parent.name):
        return None
    path, written = parent.parent, checkpoint.parent.parent
    if written.parts[-2:] == path.parts[-2:]:
        return RunFolder(written)
    here = Path.cwd()
    is_below = here in path.parents and here != path.parent  # else the run's name is not in it
    return RunFolder(path.relative_to(here) if is_below else path)
