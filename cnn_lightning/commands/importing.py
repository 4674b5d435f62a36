"""What the parser of configs may import, and which of it may stand in a config."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from jsonargparse.typing import Path
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cnn_lightning import imports
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.settings import check_text

# what a setting can be, apart from plain values; nothing of it runs what another setting names
_KINDS = (
    *(ImageClassifier, ImageDataModule, Optimizer, LRScheduler, Callback, Logger, Profiler),
    *(Strategy, Accelerator, Precision, CheckpointIO, ClusterEnvironment, LayerSync),
)
_PLAIN = (type(None), bool, int, float, str, Path, Enum, timedelta)


@contextmanager
def guarded_parser() -> Iterator[None]:
    """Let the parser import and read nothing that it should not.

    It imports nothing beyond `imports.ALLOWED` and what the user has allowed, and reads no text
    that `check_text` refuses.

    Raises:
        UserError: The user has allowed what never can be.
    """
    own = list(imports.own_modules())
    try:
        set_parsing_settings(
            import_path_denylist=["*"],
            import_path_allowlist=[*imports.ALLOWED, *own],
            instantiate_subclass_spec_in_any=False,
        )
    except ValueError as error:
        raise UserError(f"--allow_modules: {error}", "leave it out") from error
    read = get_loader("yaml")
    passed: set[str] = set()  # the parser reads each value many times

    def read_checked(text: str) -> Any:
        if text not in passed:
            check_text(text, "what was given")
            passed.add(text)
        return read(text)

    exceptions = (yaml.YAMLError,)
    set_loader("yaml", read_checked, exceptions)
    try:
        yield
    finally:
        set_loader("yaml", read, exceptions)
        set_parsing_settings(import_path_denylist=own)


def check_classes(settings: Any, key: str = "") -> None:
    """Refuse settings that are a function, or a class that is none of the kinds used here.

    The parser takes whatever fits a parameter's type, for a callable nearly anything. Classes and
    functions of modules that the user has allowed are the user's to judge.

    Args:
        settings: What the parser made of configs and flags, nothing of it built yet.
        key: Where they stand.

    Raises:
        UserError: There is one.
    """
    if isinstance(settings, Namespace):
        settings = vars(settings)
    if isinstance(settings, dict):
        if isinstance(class_path := settings.get("class_path"), str):
            _check_class(class_path, key)
        for name, value in settings.items():
            check_classes(value, f"{key}.{name}" if key else str(name))
    elif isinstance(settings, (list, tuple, set)):
        for value in settings:
            check_classes(value, key)
    elif not isinstance(settings, _PLAIN):
        module = getattr(settings, "__module__", type(settings).__module__)
        if not imports.is_within(str(module), imports.own_modules()):
            name = getattr(settings, "__qualname__", type(settings).__qualname__)
            raise UserError(f"{key}: {module}.{name} cannot be set here", "name a class")


def _check_class(class_path: str, key: str) -> None:
    if imports.is_within(class_path, imports.own_modules()):
        return
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)  # the parser has imported it
    if not (isinstance(found, type) and issubclass(found, _KINDS)):
        raise UserError(
            f"{key}: {class_path} is of no kind that a config can set up",
            "name a model, data module, optimizer, schedule, callback, logger or another part of "
            "the trainer",
        )
