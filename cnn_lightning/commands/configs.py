"""What a command line and its config files say, read before anything is built or imported."""

from pathlib import Path
from typing import Any

import yaml

from cnn_lightning.commands.options import TRAINING_ONLY
from cnn_lightning.errors import UserError
from cnn_lightning.runs import names_run
from cnn_lightning.settings import read_settings

# what the data decides, and the model is told
LINKED = {
    "data.num_classes": "model.init_args.num_classes",
    "data.num_channels": "model.init_args.in_channels",
}
# what stands beside the model in a config, and is its argument
_GROUPS = {key: f"model.init_args.{key}" for key in ("optimizer", "schedule")}
CONFIG_FLAGS = ("--config", "-c")
EVALUATIONS = ("validate", "test", "predict")
_FILES = (".yaml", ".yml", ".json")
CHECKPOINT_KEYWORDS = ("last", "best", "auto")


def read_configs(argv: list[str]) -> tuple[list[Path], list[dict[str, Any]]]:
    """The config files that a command line names, and what is in them.

    Raises:
        UserError: A file is missing or wrong, or a key is one that the data decides.
    """
    paths = [Path(value) for value in values_of(argv, *CONFIG_FLAGS)]
    configs = [read_settings(path) for path in paths]
    _refuse_linked(argv, configs)
    return paths, configs


def asks_for_help(argv: list[str]) -> bool:
    """Whether a command line asks for its options, or for those of a class (`--data.help NAME`)."""
    flags = [arg.partition("=")[0] for arg in argv if arg.startswith("-")]
    return any(flag in ("-h", "--help") or flag.endswith(".help") for flag in flags)


def refuse_training(command: str, argv: list[str]) -> None:
    """Refuse flags that only training heeds; in a recipe they pass, as that is for `fit` too.

    Raises:
        UserError: There is one, and the command trains nothing.
    """
    for arg in argv if command in EVALUATIONS else ():
        flag = arg.partition("=")[0]
        if flag.startswith("--") and flag.removeprefix("--").split(".")[0] in TRAINING_ONLY:
            raise UserError(f"{command} trains nothing, so {flag} would do nothing", "leave it out")


def _refuse_linked(argv: list[str], configs: list[dict[str, Any]]) -> None:
    for source, target in {**LINKED, **_GROUPS}.items():
        name = target.rpartition(".")[2]
        flags = (f"--{target}", f"--model.{name}")
        in_argv = any(arg.split("=")[0] in flags for arg in argv)
        in_config = any(
            isinstance(model := config.get("model"), dict)
            and isinstance(init_args := model.get("init_args"), dict)
            and name in init_args
            for config in configs
        )
        if in_argv or in_config:
            raise UserError(
                f"model.{name} cannot be set: it comes from "
                + (f"the data ({source})" if source in LINKED else f"the group {source}"),
                "leave it out",
            )


def setting(key: str, argv: list[str], configs: list[dict[str, Any]]) -> str | None:
    """A top-level setting as the last to write it wrote it, flags after files."""
    values = values_of(argv, f"--{key}")
    if values:
        return values[-1]
    value = next((c[key] for c in reversed(configs) if c.get(key) is not None), None)
    if not isinstance(value, str | None):
        raise UserError(f"{key}: {value} is no text", f"write {key}: '{value}'")
    return value


def model_class(argv: list[str], configs: list[dict[str, Any]]) -> str | None:
    """The model's class as the last to name it named it, flags after files; `None` if none did.

    Nor is it one if it is a file or a whole mapping: the parser will read that.
    """
    models = [config.get("model") for config in configs]
    classes = [one.get("class_path") if isinstance(one, dict) else one for one in models]
    classes += values_of(argv, "--model", "--model.class_path")
    name = next((one for one in reversed(classes) if isinstance(one, str)), "")
    is_name = all(part.isidentifier() for part in name.split("."))
    return name if is_name and Path(name).suffix not in _FILES else None


def names_class(group: str, argv: list[str]) -> bool:
    """Whether files and flags say of which class a group is, and not its arguments alone.

    Args:
        group: `optimizer` or `schedule`.
        argv: A command's, of which settings as YAML in place of a file are read, too.
    """
    given: list[Any] = values_of(argv, f"--{group}", f"--{group}.class_path")
    for value in values_of(argv, *CONFIG_FLAGS):
        is_text = value.startswith("{")
        content = yaml.safe_load(value) if is_text else read_settings(Path(value))
        given.append(content.get(group))
    # a text is a class, a file of one, or a mapping
    return any(
        "class_path" in one or (isinstance(one, str) and one[0] != "{") for one in given if one
    )


def values_of(argv: list[str], *flags: str) -> list[str]:
    """What a command line gives to any of these flags, in order.

    Raises:
        UserError: The last of them has no value.
    """
    values = []
    for place, arg in enumerate(argv):
        name, equals, value = arg.partition("=")
        if name in flags:
            if equals:
                values.append(value)
            elif place + 1 < len(argv):
                values.append(argv[place + 1])
            else:
                raise UserError(f"{name} needs a value", f"write {name} VALUE")
    return values


def check_checkpoint_path(argv: list[str], configs: list[dict[str, Any]]) -> None:
    """Refuse a checkpoint or run that is not there.

    Raises:
        UserError: It is given by a path or a run's name, and there is none.
    """
    asked = setting("ckpt_path", argv, configs)
    if asked is None or asked in CHECKPOINT_KEYWORDS:
        return
    log_dir = Path(setting("log_dir", argv, configs) or "logs")
    if not Path(asked).is_file() and not names_run(log_dir, asked):
        raise UserError(f"there is no checkpoint {asked}", "check the path after --ckpt_path")
