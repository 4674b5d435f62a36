"""Config files as plain settings: they are read as they are written, or refused."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from cnn_lightning.errors import UserError

# far beyond any config; what is larger is no config, or made to stop the reader
_MAX_BYTES, _MAX_DEPTH, _MAX_VALUES = 1_000_000, 40, 20_000
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")
}


class _Loader(yaml.SafeLoader):
    """Reads numbers as the parser of the commands does: 1e-3 is one, 2026-01-31 is a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the parent's form
        letter: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
        ]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Puts quotes around a text that would be read as a number, such as 1e3."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*(?:[eE][-+]?\d+)?)$"
            r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
        ),
        list("-+0123456789."),
    )


def to_yaml(settings: dict[str, Any], *, in_one_line: bool = False) -> str:
    """Settings as YAML that is read as they are; not as JSON, which has no infinity."""
    width = math.inf if in_one_line else None
    text: str = yaml.dump(
        settings, Dumper=_Dumper, default_flow_style=in_one_line, width=width, sort_keys=False
    )
    return text.strip() if in_one_line else text


def read_settings(path: Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        UserError: It is missing, no YAML, says a thing twice, or holds more than plain settings.
    """
    try:
        if not path.is_file():
            raise UserError(f"there is no config {path}", "check the path after --config")
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:  # no permission, or a name that is too long
        raise UserError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    check_text(text, str(path))
    settings = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings", "write `key: value` lines")
    return settings


def check_text(text: str, name: str) -> None:
    """Refuse YAML that would not be read as it is written, or not be read in bounded time.

    Args:
        text: What is about to be read.
        name: What to call it.

    Raises:
        UserError: It is no YAML, says a thing twice, has keys that are no names, objects other than
            plain values, or is too large or too deep, also by its aliases.
    """
    if len(text) > _MAX_BYTES:
        raise UserError(f"{name} is larger than a megabyte", "give a config file")
    try:
        depth = 0
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise UserError(f"{name}, line {_line(event)} is nested too deep", "write less")
        _check_nodes(yaml.compose(text, _Loader), name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise UserError(f"{name}{where} is not YAML", "mend its syntax") from error


def _check_nodes(root: yaml.Node | None, name: str) -> None:
    """Walk all values, those behind an alias once for each alias."""
    waiting = [] if root is None else [(root, 1)]
    count = 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise UserError(f"{name}: its aliases make it too large", "write less of them")
        if node.tag not in _PLAIN_TAGS:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            raise UserError(
                f"{name}, line {_line(node)}: {kind} is no setting", "leave the tag out"
            )
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, name)
            waiting += [(value, depth + 1) for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(value, depth + 1) for value in node.value]


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = _line(key)
        if not isinstance(key, yaml.ScalarNode) or key.tag not in (
            "tag:yaml.org,2002:str",
            "tag:yaml.org,2002:merge",
        ):
            raise UserError(f"{name}, line {line}: a key is no name", "write `key: value` lines")
        if key.value in seen:
            raise UserError(
                f"{name}, line {line}: {key.value} is set a second time (first in line "
                f"{seen[key.value]})",
                "keep one of the two",
            )
        seen[key.value] = line


def _line(place: Any) -> int:
    return int(place.start_mark.line) + 1
