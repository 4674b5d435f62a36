"""What a command line asks for: run folder, checkpoint, and settings in the order they win.

Lowest to highest: defaults, what the run or checkpoint knows, config files and flags as written.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from cnn_lightning.checkpoint_content import CHECKPOINT_KEY, Content
from cnn_lightning.commands.configs import (
    CHECKPOINT_KEYWORDS,
    LINKED,
    model_class,
    read_configs,
    refuse_training,
    setting,
    values_of,
)
from cnn_lightning.commands.own_files import file_settings, names_files
from cnn_lightning.console import say
from cnn_lightning.errors import DamagedFileError, UserError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.runs import (
    RunFolder,
    checkpoints_of,
    checkpoints_to_resume,
    find_checkpoint,
    folder_of,
    names_run,
    new_version,
    similar_runs,
)
from cnn_lightning.settings import read_settings, to_yaml


@dataclass
class Start:
    """How a command starts.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        arguments: For the parser: what is known already, then what the user wrote.
        folder: Where the files of the run go.
        checkpoint_path: Where the weights come from, if not from nowhere.
        checkpoint: Its content.
        known: The settings of the run or the checkpoint, below what the user wrote.
        is_new: Whether a training makes its folder, and does not go on in that of the checkpoint.
    """

    command: str
    arguments: list[str]
    folder: RunFolder
    checkpoint_path: Path | None = None
    checkpoint: dict[str, Any] | None = None
    known: dict[str, Any] = field(default_factory=dict)
    is_new: bool = False

    @property
    def step(self) -> int | None:
        """Optimizer steps done in the checkpoint."""
        return None if self.checkpoint is None else int(self.checkpoint.get("global_step", 0))

    def changes(self, config: dict[str, Any]) -> list[str]:
        """A line for each setting that differs from the run that is resumed."""
        before, after = _flatten(self.known), _flatten(config)
        return [
            f"changed: {key} is {after[key]}, was {before[key]}"
            for key in sorted(before.keys() & after.keys())
            if before[key] != after[key]
        ]

    def check_fit(self, model: nn.Module) -> None:
        """Refuse weights of another network, naming what does not fit."""
        assert self.checkpoint is not None  # noqa: S101  # checked by the caller
        found, wanted = self.checkpoint["state_dict"], model.state_dict()
        odd = [f"{key} is missing" for key in wanted if key not in found]
        odd += [f"{key} is too much" for key in found if key not in wanted]
        odd += [
            f"{key} is {tuple(found[key].shape)}, not {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in found and found[key].shape != value.shape
        ]
        if odd:
            raise UserError(
                f"{self.checkpoint_path} does not fit {type(model).__name__} as configured: "
                f"{'; '.join(odd[:2])}" + (f" and {len(odd) - 2} more" if len(odd) > 2 else ""),
                "use the config and the data that the checkpoint was made with",
            )

    def drop_numbers(self) -> None:
        """Give up the weights, and the optimizer's state, that Lightning will read anew."""
        for key in ("state_dict", "optimizer_states"):
            (self.checkpoint or {}).pop(key, None)


def read_start(command: str, argv: list[str]) -> Start:
    """Find the run folder and the checkpoint that a command line names.

    Raises:
        UserError: A file is missing or wrong, or a key is one that the data decides.
    """
    refuse_training(command, argv)
    config_paths, configs = read_configs(argv)
    log_dir = Path(setting("log_dir", argv, configs) or "logs")
    asked = setting("ckpt_path", argv, configs)
    run = setting("run", argv, configs)
    if run is None and config_paths:
        run = config_paths[0].stem
    if run is not None and (run in ("", ".", "..") or Path(run).name != run):
        raise UserError(f"run {run!r} is no name of a folder", "leave slashes out of it")
    found = _find(command, asked, log_dir, run)
    if found is None:
        if command != "fit" and asked is None:
            raise UserError(
                f"{command} needs weights", "give --ckpt_path PATH, or --run NAME --ckpt_path best"
            )
        folder = new_version(log_dir, run or "run")
        return Start(command, _without(argv, "--ckpt_path"), folder, is_new=True)
    path, checkpoint = found
    if CHECKPOINT_KEY not in checkpoint:
        raise UserError(
            f"{path} was not written by cnn-lightning",
            "use it as `weights` of a model, or give one of a run",
        )
    Content(checkpoint, path).check_ours()
    known = _known(command, path, checkpoint)
    if command == "predict" and names_files(argv, configs):
        known["data"] = file_settings(path, checkpoint)
    _refuse_other_class(path, known, model_class(argv, configs))
    own = folder_of(path)
    if own is not None and _is_meant(own, argv):
        folder = own
    elif own is not None:
        own = RunFolder(own.path.resolve())  # a relative path may lack the run's name
        log_dir = Path(setting("log_dir", argv, configs) or own.log_dir)
        folder = new_version(log_dir, run or own.name)
    else:
        folder = new_version(log_dir, run or path.stem)
    below = _without_appended(known, argv)
    arguments = ["--config", to_yaml(below, in_one_line=True), *_without(argv, "--ckpt_path")]
    if "weights" in checkpoint.get("hyper_parameters", {}):
        # they are in the checkpoint: the file they came from may be gone
        arguments.append("--model.init_args.weights=null")
    return Start(command, arguments, folder, path, checkpoint, known, is_new=folder is not own)


def _find(
    command: str, asked: str | None, log_dir: Path, run: str | None
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that is asked for, and its content."""
    if asked is None:
        return None
    if asked not in CHECKPOINT_KEYWORDS and names_run(log_dir, asked):
        paths = checkpoints_of(log_dir, asked, "last" if command == "fit" else "best")
        found = _first_whole(command, paths)
        say(f"taking {found[0]}")
        return found
    if asked not in CHECKPOINT_KEYWORDS:
        return Path(asked), load_checkpoint(Path(asked))
    if run is None:
        raise UserError(f"--ckpt_path {asked} of which run?", "give --run NAME or --config FILE")
    if asked == "best":
        best = find_checkpoint(log_dir, run, asked)
        paths = [] if best is None else [best]
    else:
        paths = checkpoints_to_resume(log_dir, run)
    if paths:
        path, checkpoint = _first_whole(command, paths)
        if asked == "auto":
            say(f"auto: going on from {path}")
        return path, checkpoint
    if asked != "auto":
        instead = "leave --ckpt_path out to start one, or " if command == "fit" else ""
        if command != "fit" and asked == "best" and checkpoints_to_resume(log_dir, run):
            instead = "take --ckpt_path last, or "
        if command != "fit" and (near := similar_runs(log_dir, run)) and run not in near:
            instead = f"perhaps {', '.join(near)}; "
        raise UserError(
            f"no run {run} in {log_dir} has a {asked}.ckpt", f"{instead}check --run and --log_dir"
        )
    say("auto: starting anew")
    return None


def _first_whole(command: str, paths: list[Path]) -> tuple[Path, dict[str, Any]]:
    damaged: list[DamagedFileError] = []
    for path in paths:
        try:
            checkpoint = load_checkpoint(path)
        except DamagedFileError as error:
            damaged.append(error)
            continue
        if damaged:
            what = "; ".join(one.what for one in damaged)
            say(f"{what}; taking {path} instead, of step {checkpoint.get('global_step', 0)}")
        return path, checkpoint
    what = "; ".join(one.what for one in damaged)
    remedy = "leave --ckpt_path out to start anew" if command == "fit" else "use another copy"
    raise DamagedFileError(what, remedy)


def _known(command: str, path: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Settings that the run or the checkpoint brings along."""
    folder = folder_of(path)
    newest = folder.newest_config() if folder is not None else None
    if command == "fit" and newest is not None:
        known = read_settings(newest)
        known.pop("ckpt_path", None)
        settings = known["model"].get("init_args") or {}
        if "image_size" in settings and settings["image_size"] is None:
            # that of weights, which are not asked for again
            settings["image_size"] = checkpoint.get("hyper_parameters", {}).get("image_size")
        return known
    ours = checkpoint[CHECKPOINT_KEY]
    init_args = dict(checkpoint.get("hyper_parameters", {}))
    for target in LINKED.values():
        init_args.pop(target.rpartition(".")[2], None)
    spec = {key: init_args.pop(key, None) for key in ("optimizer", "schedule")}
    known = {"model": {"class_path": ours["classifier"], "init_args": init_args}}
    if command == "fit":
        known.update({key: value for key, value in spec.items() if value})
    if ours["data"] is not None:
        known["data"] = {
            "class_path": ours["data"],
            "init_args": dict(checkpoint.get("datamodule_hyper_parameters", {})),
        }
    return known


def _is_meant(folder: RunFolder, argv: list[str]) -> bool:
    """Whether files go into the folder of the checkpoint: no flag names another run or place."""
    place = RunFolder(folder.path.resolve())
    run, log_dir = (setting(key, argv, []) for key in ("run", "log_dir"))
    return run in (None, place.name) and (
        log_dir is None or Path(log_dir).resolve() == place.log_dir
    )


def _refuse_other_class(path: Path, known: dict[str, Any], asked: str | None) -> None:
    stored = known["model"]["class_path"].rpartition(".")[2]
    if asked is not None and asked.rpartition(".")[2] != stored:
        raise UserError(
            f"{path} is of a {stored}, and {asked} is asked for",
            "use the config and the flags that the checkpoint was made with",
        )


def _without_appended(known: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """The same without the callbacks and loggers that the command itself appends once more."""
    trainer = dict(known.get("trainer") or {})
    for key in ("callbacks", "logger"):
        appended = re.findall(r"\w+", " ".join(values_of(argv, f"--trainer.{key}+")))
        if appended and isinstance(trainer.get(key), list):
            trainer[key] = [
                one for one in trainer[key] if one["class_path"].rpartition(".")[2] not in appended
            ]
    return {**known, "trainer": trainer} if trainer else known


def _without(argv: list[str], flag: str) -> list[str]:
    kept = []
    skip = False
    for arg in argv:
        if skip:
            skip = False
        elif arg == flag:
            skip = True
        elif not arg.startswith(f"{flag}="):
            kept.append(arg)
    return kept


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flatten(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }
