"""Modules that others import at their start and hardly use: put off, or not found at all."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# what `import name.sub` and `from name import *` ask for
_IMPORTED_BY = ("__path__", "__all__")


@contextmanager
def deferred(name: str, **attributes: object) -> Iterator[None]:
    """Put off importing a module inside the block, until an attribute of it is asked for.

    A module that has been imported already stays as it is.

    Args:
        name: The module's full name; its package is not put off.
        attributes: What can be asked of it, and is answered with these values, without importing
            it; for imports that ask whether there is such an attribute, and do nothing then.
    """
    if name in sys.modules:
        yield
        return
    stand_in = _StandIn(name, attributes)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


@contextmanager
def absent(name: str) -> Iterator[None]:
    """Let a module not be found inside the block; one that has been imported already stays.

    Args:
        name: The module's full name.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks what is not to be found
    try:
        yield
    finally:
        if sys.modules.get(name, name) is None:
            del sys.modules[name]


class _StandIn(ModuleType):
    def __init__(self, name: str, attributes: dict[str, object]) -> None:
        super().__init__(name)
        self.__dict__.update(attributes)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and attribute not in _IMPORTED_BY:
            raise AttributeError(attribute)  # inspect asks every module for its file
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)
