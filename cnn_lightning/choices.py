"""Arguments that take one of a few values, looked at as a class is built in Python."""

import sys
import typing
from functools import cache
from types import FunctionType
from typing import Any

from cnn_lightning.errors import UserError

_PACKAGE = __name__.partition(".")[0]


def check_choices(instance: object) -> None:
    """Refuse arguments that are none of the values their types name; called in an `__init__`.

    Configs and flags are held against the types; what Python code gives is not, and a misspelt
    choice would mostly be as none. Looks at every `__init__` of this package that the object is
    being built by, from the one that calls this outwards.

    Raises:
        UserError: An argument is none of its choices.
    """
    inits = {
        init.__code__: init
        for kind in type(instance).__mro__
        if isinstance(init := vars(kind).get("__init__"), FunctionType)
    }
    frame = sys._getframe(1)
    while (init := inits.get(frame.f_code)) is not None and frame.f_back is not None:
        for name, choices in _choices(init).items():
            if (value := frame.f_locals[name]) not in choices:
                raise UserError(
                    f"{name} of {type(instance).__name__} is {value!r}",
                    f"use one of {', '.join(map(repr, choices))}",
                )
        frame = frame.f_back


@cache
def _choices(init: FunctionType) -> dict[str, tuple[Any, ...]]:
    """The arguments of an `__init__` whose type is a `Literal`, or one or `None`."""
    if init.__module__.partition(".")[0] != _PACKAGE:
        return {}  # another may have put something else in an argument's place by now
    found = {}
    for name, kind in typing.get_type_hints(init).items():
        parts = typing.get_args(kind) if typing.get_origin(kind) is typing.Union else (kind,)
        if name != "return" and all(_is_choice(part) for part in parts):
            values = (typing.get_args(part) or (None,) for part in parts)
            found[name] = tuple(value for some in values for value in some)
    return found


def _is_choice(kind: Any) -> bool:
    return kind is type(None) or typing.get_origin(kind) is typing.Literal
