"""Mistakes that need no torch to be found are told before the seconds that importing it takes.

What is known here is read from the source of the classes that the parser would import. Only what
the parser refuses for certain is refused; whatever needs more is left to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from cnn_lightning.commands.configs import (
    CONFIG_FLAGS,
    EVALUATIONS,
    asks_for_help,
    check_checkpoint_path,
    read_configs,
    refuse_training,
)
from cnn_lightning.commands.explanations import explain, unknown_class, unknown_key
from cnn_lightning.commands.options import CALLBACK_GROUPS, CLASS_GROUPS, GENERAL
from cnn_lightning.errors import UserError
from cnn_lightning.imports import ALLOWED, is_within, own_modules
from cnn_lightning.settings import check_text
from cnn_lightning.signatures import (
    Definition,
    Parameters,
    class_parameters,
    find_class,
    method_parameters,
)

_TRAINER = ("lightning.pytorch", "Trainer")
# of every parser of Lightning's
_ALWAYS = ("config", "print_config", "help")
# what stands beside the arguments of a class
_ABOUT_CLASS = ("class_path", "init_args", "dict_kwargs", "help")


@dataclass
class _Class:
    """The class that a group names, as far as the settings have been read.

    Args:
        path: Name or import path.
        arguments: Those given to it, by name; the last value of each.
    """

    path: str | None = None
    arguments: "dict[str, _Given]" = field(default_factory=dict)


@dataclass
class _Given:
    """A setting as it was written.

    Args:
        key: Its full name; a flag has its dashes.
        value: What it is set to.
        is_whole: Whether `value` is all there is, not a part of a deeper setting.
    """

    key: str
    value: Any
    is_whole: bool = True


def check_early(command: str, argv: list[str], *, own_flags: bool = True) -> None:
    """Refuse config files and flags that the parser of a training command is sure to refuse.

    Args:
        command: `fit`, `validate`, `test` or `predict`, or one that takes the options of `fit`.
        argv: Its arguments.
        own_flags: Whether all flags are options of a training command.

    Raises:
        UserError: A file is missing, a key or class is unknown, or a value is of a wrong type.
    """
    if asks_for_help(argv):
        return
    refuse_training(command, argv)
    paths, configs = read_configs(argv)
    check_checkpoint_path(argv, configs)
    check = _Check(command)
    known = dict(zip(map(str, paths), configs, strict=True))
    for flag, value in _flags(argv):
        if flag in CONFIG_FLAGS:
            check.read(known[str(Path(str(value)))])
        elif flag.startswith("--") and own_flags:
            check.take(flag.removeprefix("--").split("."), _Given(flag, value))
    check.finish()


class _Check:
    """Reads settings in the order in which they win over one another, and judges the outcome.

    Args:
        command: Whose options they are.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        trainer = find_class(*_TRAINER)
        groups = {"trainer": trainer}
        if command not in EVALUATIONS:
            command = "fit"
            groups |= {
                key: find_class("cnn_lightning.callbacks", name)
                for key, name in CALLBACK_GROUPS.items()
            }
        self.groups: dict[str, Parameters | None] = {
            key: found and class_parameters(found) for key, found in groups.items()
        }
        run = (trainer and method_parameters(trainer, command)) or {}
        self.known = {*_ALWAYS, *run, *GENERAL, *CLASS_GROUPS, *self.groups, command}
        self.known.update(CALLBACK_GROUPS)
        self.plain: dict[str, _Given] = {}
        self.classes = {key: _Class() for key in CLASS_GROUPS}

    def read(self, settings: dict[str, Any]) -> None:
        """Take the settings of a config file."""
        for key, value in settings.items():
            self.take(key.split("."), _Given(key, value))

    def take(self, path: list[str], given: _Given) -> None:
        """Take one setting.

        Args:
            path: Its name, in parts.
            given: The setting.
        """
        top, *rest = [part.removesuffix("+") for part in path]
        if top not in self.known:
            raise unknown_key(self.command, given.key, self.known)
        if top in CLASS_GROUPS:
            self._take_class(self.classes[top], rest, given)
        elif top in self.groups and not rest:
            for key in [key for key in self.plain if key.startswith(f"{top}.")]:
                del self.plain[key]
            for name, value in _items(given.value):
                self.take([top, *name.split(".")], _Given(f"{given.key}.{name}", value))
        else:
            name = ".".join([top, *rest[:1]])
            is_whole = len(rest) <= (top in self.groups) and not path[-1].endswith("+")
            self.plain[name] = _Given(given.key, given.value, is_whole)

    def _take_class(self, known: _Class, rest: list[str], given: _Given) -> None:
        if not rest or rest == ["class_path"]:
            values = given.value
            path = values.get("class_path") if isinstance(values, dict) else values
            if path is not None or not isinstance(values, dict):
                if not isinstance(path, str) or path != known.path:
                    known.arguments.clear()  # those of another class are dropped
                known.path = path if isinstance(path, str) else None
            init_args = values.get("init_args") if isinstance(values, dict) else None
            for name, value in _items(init_args):
                self._take_class(known, [name], _Given(f"{given.key}.{name}", value))
        elif rest == ["init_args"]:
            known.arguments.clear()
        elif rest[0] == "init_args" or rest[0] not in _ABOUT_CLASS:
            name, *deeper = rest[1:] if rest[0] == "init_args" else rest
            known.arguments[name] = _Given(given.key, given.value, is_whole=not deeper)

    def finish(self) -> None:
        """Judge what was taken.

        Raises:
            UserError: The parser would refuse it.
        """
        for key, given in self.plain.items():
            group, _, name = key.partition(".")
            if group in GENERAL:
                self._check_value(key, GENERAL[group].kind, given)
            elif name:
                self._check(group, name, self.groups.get(group), given)
        for key, known in self.classes.items():
            if known.path is not None:
                parameters = _parameters_of(key, known.path)
                for name, given in known.arguments.items():
                    self._check(key, name, parameters, given)

    def _check(self, group: str, name: str, known: Parameters | None, given: _Given) -> None:
        if known is None:
            return
        if name not in known:
            options = [f"{group}.{option}" for option in known]
            raise unknown_key(self.command, given.key, options)
        self._check_value(f"{group}.{name}", known[name], given)

    def _check_value(self, key: str, kind: Any, given: _Given) -> None:
        if kind is Any or given.value is None or not given.is_whole:
            return
        if isinstance(given.value, str):
            try:
                check_text(given.value, key)
            except UserError:
                return  # is it read at all? the parser knows
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{key}", type=kind | None)
        settings = given.value
        for part in reversed(key.split(".")):
            settings = {part: settings}
        try:
            parser.parse_object(settings)
        except ArgumentError as error:
            told = explain(error, self.command)
            raise UserError(f"{told.what}, not {given.value!r}", told.remedy) from error


def _parameters_of(key: str, path: str) -> Parameters | None:
    """What a class takes; `None` if that cannot be told from here."""
    modules = CLASS_GROUPS[key].modules
    found: Definition | None = None
    if path.isidentifier():
        places = [find_class(module, path) for module in modules]
        found = next((place for place in places if place is not None), None)
        if found is None and not own_modules() and not Path(path).exists():
            raise unknown_class(key, path)
    elif is_within(path, ALLOWED):
        module, _, name = path.rpartition(".")
        found = find_class(module, name)
    return found and class_parameters(found)


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _flags(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """Flags and their values in order; what is neither is left to the parser."""
    place = 0
    while place < len(argv):
        flag, equals, value = argv[place].partition("=")
        place += 1
        if not flag.strip("-") or not flag.startswith("-"):
            continue
        if equals:
            yield flag, value
        elif place < len(argv) and not argv[place].startswith("--"):
            yield flag, argv[place]
            place += 1
        else:
            yield flag, None
