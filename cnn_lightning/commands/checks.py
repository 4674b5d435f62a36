"""Settings that the parser lets pass and that mean nothing."""

import inspect
import math
from collections.abc import Collection
from types import NoneType
from typing import Any, get_args, get_type_hints

from jsonargparse import Namespace

from cnn_lightning.errors import UserError
from cnn_lightning.imports import import_class

_LEAST = {
    "cpu_micro_batch": 2,  # batch norm cannot learn from one image
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 0,
}
_MAY_BE_INFINITE = "trainer.gradient_clip_val"  # gradients are measured, and none clipped
_MOST_SEED = 2**32 - 1  # numpy's


def check_groups(settings: Namespace, groups: Collection[str]) -> None:
    """Refuse a value in place of a group of settings.

    Raises:
        UserError: There is one.
    """
    for group in groups:
        if not isinstance(settings.get(group), (Namespace, dict)):
            raise UserError(
                f"{group} is {settings.get(group)!r}, not a group of settings",
                "leave it out, or write `key: value` lines below it",
            )


def check_named(settings: Namespace, keys: Collection[str]) -> None:
    """Refuse `null` for a class: the default would stand in for it, without a word.

    Raises:
        UserError: There is one.
    """
    for key in keys:
        if settings.get(key) is None:
            remedy = f"name a class, or leave it out for the default of {key}"
            if key == "schedule":
                remedy += "; --schedule ConstantLR --schedule.factor 1 keeps the rate"
            raise UserError(f"{key} is null", remedy)


def check_numbers(settings: Any, key: str = "") -> None:
    """Refuse numbers that are not finite, which pass every comparison that a class may make.

    Raises:
        UserError: There is one.
    """
    if isinstance(settings, Namespace):
        settings = vars(settings)
    if isinstance(settings, dict):
        for name, value in settings.items():
            check_numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            check_numbers(value, key)
    elif isinstance(settings, float) and not math.isfinite(settings):
        if key == _MAY_BE_INFINITE and settings > 0:
            return
        raise UserError(f"{key} is {settings}", "give a finite number")


def check_ranges(settings: Namespace) -> None:
    """Refuse numbers that Lightning takes and fails on later, and what would have no effect.

    Raises:
        UserError: There is one.
    """
    for key, least in _LEAST.items():
        value = settings.get(key)
        for number in value.values() if isinstance(value, dict) else (value,):
            if number is not None and number < least:
                raise UserError(f"{key} is {value}", f"give at least {least}")
    if settings.get("weights_only") is False:
        raise UserError("weights_only is false", "leave it out: checkpoints are read so alone")
    seed = settings.seed_everything
    if seed is None or not 0 <= seed <= _MOST_SEED:
        raise UserError(f"seed_everything is {seed}", f"give a number in 0..{_MOST_SEED}")


def check_length(trainer: Namespace, *, is_new: bool) -> None:
    """Refuse a training without an image, which Lightning would end as if it were done.

    Args:
        trainer: Settings of the trainer.
        is_new: Whether nothing is resumed; else an end that has been reached is told later.

    Raises:
        UserError: There would be no batch or no epoch.
    """
    for key in ("limit_train_batches", *(("max_epochs", "max_steps") if is_new else ())):
        if trainer.get(key) == 0:
            raise UserError(
                f"trainer.{key} is 0: nothing would be trained", "give more, or leave it out"
            )


def check_nulls(settings: Any, key: str = "", kind: type | None = None) -> None:
    """Refuse `null` for arguments that are never `None`; the parser takes it for all.

    Args:
        settings: What the parser made of configs and flags.
        key: Where they stand.
        kind: The class that `settings` are the arguments of, if it is known.

    Raises:
        UserError: There is one.
    """
    if isinstance(settings, list):
        for value in settings:
            check_nulls(value, key)
    if not isinstance(settings, Namespace):
        return
    if "class_path" in settings:
        kind = import_class(settings.class_path, object)
        if settings.get("init_args") is not None:
            check_nulls(settings.init_args, key, kind)
        return
    for name, value in vars(settings).items():
        place = f"{key}.{name}" if key else name
        if value is None and kind is not None and not _takes_none(kind, name):
            raise UserError(f"{place} is null", "give a value, or leave it out")
        check_nulls(value, place)


def _takes_none(kind: type, name: str) -> bool:
    for base in kind.__mro__:
        init = vars(base).get("__init__")
        parameter = inspect.signature(init).parameters.get(name) if init is not None else None
        if parameter is None:
            continue
        # what has no default is missed by the class itself, or is told it by the data
        if parameter.default in (None, parameter.empty) or parameter.annotation is parameter.empty:
            return True
        try:
            hint = get_type_hints(init)[name]
        except NameError:  # a type that is imported for type checkers alone
            return False
        return hint is Any or NoneType in get_args(hint)
    return True
