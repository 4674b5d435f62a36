"""Which modules a config or a checkpoint may name classes of: importing a module runs its code."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from cnn_lightning.errors import UserError

ALLOWED = (
    *("cnn_lightning", "lightning", "torchmetrics", "torchvision"),
    *("torch.nn", "torch.optim"),
)

_Class = TypeVar("_Class")
_own: ContextVar[tuple[str, ...]] = ContextVar("modules of the user's own", default=())


@contextmanager
def allow_modules(names: Sequence[str]) -> Iterator[None]:
    """Let configs and checkpoints name classes of more modules inside the block.

    Modules in the current folder are found too, after all others.

    Args:
        names: Modules or packages.

    Raises:
        UserError: A name is no module's.
    """
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"--allow_modules: {name!r} is no module", "write NAME[,NAME]")
    token = _own.set((*_own.get(), *names))
    searched = list(sys.path)
    if names:
        sys.path.append("")
    try:
        yield
    finally:
        _own.reset(token)
        sys.path[:] = searched


def own_modules() -> tuple[str, ...]:
    """What the user has allowed beyond `ALLOWED`."""
    return _own.get()


def is_within(path: str, modules: Sequence[str]) -> bool:
    """Whether an import path lies in one of the modules.

    Example:
        >>> is_within("torch.optim.SGD", ["torch.optim"]), is_within("torchx.SGD", ["torch"])
        (True, False)
    """
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def refusal(class_path: str, named_by: str = "") -> UserError:
    """The error that tells how to allow a class that is not."""
    module = class_path.partition(".")[0]
    return UserError(
        f"{named_by}{class_path} was not imported: importing a module runs its code, and this one "
        "is not of the packages used here",
        "name a class of this project, of torch.optim or of Lightning"
        if module in sys.stdlib_module_names
        else f"if you trust it, add --allow_modules {module}",
    )


def import_class(class_path: str, base: type[_Class]) -> type[_Class]:
    """A class by its import path, of an allowed module or of one that is imported already.

    Raises:
        UserError: The module is not allowed or not there, or it has no such subclass of `base`.
    """
    module_name, _, name = class_path.rpartition(".")
    module = sys.modules.get(module_name)
    if module is None and module_name:
        if not is_within(class_path, (*ALLOWED, *own_modules())):
            raise refusal(class_path)
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UserError(f"cannot import {class_path}: {error}", "correct class_path") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(
            f"{class_path} is no {base.__name__}", f"name a subclass of {base.__name__}"
        )
    return found
