"""What stands in a checkpoint, held against what must stand there, before any of it is used."""

import inspect
import math
import re
import sys
from pathlib import Path, PurePath
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnn_lightning.errors import UserError

CHECKPOINT_KEY = "cnn_lightning"
CHECKPOINT_FORMAT = 1
# beside the part of that name: how many the network has; not in older checkpoints
PARAMETERS_KEY = "num_parameters"

_MAX_DEPTH, _MAX_VALUES = 40, 1_000_000
_MAX_SIDE = 100_000  # pixels
_PLAIN = (str, int, float, type(None), torch.Size, torch.dtype, torch.device)
_PLAIN_TYPES = (*_PLAIN, bool)
_MAX_LISTED = 1000  # numbers: far more than there are channels or classes' weights
# before 2.0 Lightning wrote other content, which it would rewrite as it is read
_VERSION = re.compile(r"[2-9]\.\d+(\.\d+\w*)*|[2-9]\.\d+\.\d+.{0,30}")
# what Lightning may have put there by other means than this project's
_NAMES = ("hparams_name", "datamodule_hparams_name")


class Content:
    """A checkpoint that is checked part by part; every complaint names the file.

    Args:
        values: What was read.
        path: Where from.

    Raises:
        UserError: It holds tensors without their numbers, or is nested without end.
    """

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.values = values
        self.path = path
        self._check_values()

    def refuse(self, what: str) -> UserError:
        """The error that says what is wrong."""
        return UserError(
            f"{self.path} is no checkpoint that can be used: {what}", "use another copy or another"
        )

    def demand(self, *, holds: bool, what: str) -> None:
        """Refuse the checkpoint unless something holds.

        Raises:
            UserError: It does not.
        """
        if not holds:
            raise self.refuse(what)

    def check_state(self, state: object) -> None:
        """Names and tensors, and nothing else.

        Raises:
            UserError: There is something else.
        """
        self.demand(holds=isinstance(state, dict), what="its state_dict is no dictionary")
        for name, value in state.items():  # type: ignore[attr-defined]
            self.demand(
                holds=isinstance(name, str) and isinstance(value, Tensor),
                what=f"{name!r} in its state_dict is no tensor",
            )

    def num_parameters(self) -> int | None:
        """How many parameters the network has, `None` if it does not say."""
        stored = self.values.get(PARAMETERS_KEY)
        return stored if _is_count(stored) else None

    def check_kinds(self, known: dict[str, Tensor]) -> None:
        """The tensors of a state are numbers of the same kind as those they take the place of.

        Raises:
            UserError: Whole numbers stand for fractions, or the other way round.
        """
        for name, value in self.values["state_dict"].items():
            if name in known:
                self.demand(
                    holds=value.is_floating_point() == known[name].is_floating_point(),
                    what=f"{name} is {value.dtype}, not {known[name].dtype}",
                )

    def check_ours(self) -> None:
        """Everything that `fit` wrote but the state of the training.

        Raises:
            UserError: Something is missing or is not what `fit` writes.
        """
        values = self.values
        self.check_state(values.get("state_dict"))
        for key in ("epoch", "global_step"):
            self.demand(holds=_is_count(values.get(key)), what=f"its {key} is no count")
        version = values.get("pytorch-lightning_version")
        self.demand(
            holds=isinstance(version, str) and _VERSION.fullmatch(version) is not None,
            what="it names no version of Lightning from 2.0 on",
        )
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            self._check_arguments(values.get(key, {}), key)
        for key in _NAMES:
            self.demand(
                holds=values.get(key, "kwargs") == "kwargs", what=f"its {key} is not kwargs"
            )
        self.demand(holds="hparams_type" not in values, what="it has a hparams_type")
        for key in ("optimizer", "schedule"):
            self._check_spec(values.get("hyper_parameters", {}).get(key), key)
        self._check_section(values.get(CHECKPOINT_KEY))

    def _check_arguments(self, arguments: object, name: str) -> None:
        self.demand(holds=isinstance(arguments, dict), what=f"its {name} are no dictionary")
        for key, value in arguments.items():  # type: ignore[attr-defined]
            # an argument that begins so tells Lightning what to call
            self.demand(
                holds=isinstance(key, str) and key.isidentifier() and not key.startswith("_"),
                what=f"{key!r} in its {name} is no argument",
            )
            leaves = _leaves(value)
            self.demand(
                holds=not any(isinstance(one, Tensor) for one in leaves)
                and all(_is_number(one) for one in leaves if isinstance(one, float)),
                what=f"{key} in its {name} is no plain value",
            )

    def _check_spec(self, spec: object, name: str) -> None:
        if spec is None:
            return
        self.demand(
            holds=isinstance(spec, dict) and isinstance(spec.get("class_path"), str),
            what=f"its {name} has no class_path",
        )
        self._check_arguments(spec.get("init_args", {}), name)  # type: ignore[attr-defined]

    def _check_section(self, ours: object) -> None:
        if not isinstance(ours, dict):
            raise self.refuse(f"its part {CHECKPOINT_KEY} is no dictionary")
        form = ours.get("format")
        told = form if _is_count(form) else f"a {type(form).__name__}"
        self.demand(
            holds=_is_count(form) and form == CHECKPOINT_FORMAT,
            what=f"its format is {told}, known is {CHECKPOINT_FORMAT}",
        )
        self.demand(holds=isinstance(ours.get("classifier"), str), what="it names no classifier")
        self.demand(
            holds=isinstance(ours.get("data", 0), str | None), what="it names its data wrongly"
        )
        names = ours.get("class_names")
        self.demand(
            holds=isinstance(names, list) and all(isinstance(name, str) for name in names),
            what="its class names are no texts",
        )
        shape = ours.get("image_shape")
        self.demand(
            holds=isinstance(shape, list)
            and len(shape) in (0, 3)
            and all(_is_count(side) and 0 < side <= _MAX_SIDE for side in shape),
            what=f"its image_shape is {shape!r}",
        )
        window = ours.get("window")
        # one row per process; checkpoints of one process alone once had the row by itself
        rows = [window] if _is_row(window) else window
        self.demand(
            holds=isinstance(rows, list) and bool(rows) and all(_is_row(row) for row in rows),
            what="its sums of the running window are not three numbers per process",
        )
        self._check_preprocessing(ours.get("preprocessing"), len(names or ()), shape)
        optimization = ours.get("optimization", {})
        self.demand(
            holds=isinstance(optimization, dict)
            and optimization.get("schedule_interval", "step") in ("step", "epoch"),
            what="it does not say how it was optimized",
        )
        for key in ("optimizer", "schedule"):
            self._check_spec(optimization.get(key), key)

    def _check_preprocessing(self, stored: object, num_names: int, shape: Any) -> None:
        if stored is None:
            self.demand(holds=not num_names, what="it does not say how images are prepared")
            return
        if not isinstance(stored, dict):
            raise self.refuse("its preprocessing is no dictionary")
        mean, std, size = (stored.get(key, "") for key in ("mean", "std", "size"))
        for name, constants in (("mean", mean), ("std", std)):
            self.demand(
                holds=isinstance(constants, list)
                and len(constants) == (shape[0] if shape else len(constants))
                and all(_is_number(value) for value in constants),
                what=f"its normalisation's {name} is {constants!r}",
            )
        self.demand(holds=all(value > 0 for value in std), what=f"its normalisation's std is {std}")
        self.demand(
            holds=size is None or (_is_count(size) and 0 < size <= _MAX_SIDE),
            what=f"its image size is {size!r}",
        )

    def _check_values(self) -> None:
        waiting: list[tuple[Any, int]] = [(self.values, 1)]
        count = 0
        while waiting:
            value, depth = waiting.pop()
            count += 1
            # what holds itself, or the same over and over, would be walked without end
            self.demand(
                holds=depth <= _MAX_DEPTH and count <= _MAX_VALUES, what="it is nested without end"
            )
            if isinstance(value, dict):
                for key in value:
                    self.demand(holds=isinstance(key, (str, int)), what=f"{key!r} in it is no name")
                waiting += [(one, depth + 1) for one in value.values()]
            elif isinstance(value, (list, tuple, set)):
                waiting += [(one, depth + 1) for one in value]
            elif isinstance(value, Tensor):
                self.demand(holds=_is_whole(value), what="a tensor in it has not all its numbers")
            else:
                self.demand(
                    holds=isinstance(value, _PLAIN), what=f"it holds a {type(value).__name__}"
                )


def first_init(instance: object) -> FrameType:
    """The frame of the `__init__` that an object is being built by, for `save_hyperparameters`.

    Its arguments alone build the object again: what a class passes on to the one below it, that
    one is given again by the class itself, and it may take nothing of the kind. A class with
    `*args` keeps those of the class below, too, which know their names.
    """
    frame = sys._getframe(1)
    outer = frame.f_back
    while outer is not None and _builds(outer, instance):
        if not outer.f_code.co_flags & inspect.CO_VARARGS:
            frame = outer
        outer = outer.f_back
    return frame


def _builds(frame: FrameType, instance: object) -> bool:
    code = frame.f_code
    return (
        code.co_name == "__init__"
        and "__class__" in frame.f_locals  # without `super()` Lightning does not look at it
        and frame.f_locals.get(code.co_varnames[0]) is instance
    )


def as_plain(value: Any) -> Any:
    """A value as checkpoints are read: paths as texts, numbers of numpy and torch as Python's.

    Dictionaries, lists and tuples are gone through. Arrays and tensors of many numbers stay as they
    are, as does whatever else is not plain.

    Example:
        >>> as_plain({"root": Path("photos"), "mean": (np.float64(0.5),), "size": 8})
        {'root': 'photos', 'mean': (0.5,), 'size': 8}
    """
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.tolist() if math.prod(value.shape) <= _MAX_LISTED else value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {as_plain(key): as_plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(as_plain, value))
    return value


def plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those arguments of a class that a checkpoint can hold, made plain.

    One with anything else in it, such as images or a network, is left out: with it, nothing of the
    checkpoint could be read. Whoever builds the class again has to give it again.
    """
    plain = {name: as_plain(value) for name, value in arguments.items()}
    return {
        name: value
        for name, value in plain.items()
        if all(type(leaf) in _PLAIN_TYPES for leaf in _leaves(value))
    }


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    if isinstance(value, (list, tuple, set)):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]


def _is_whole(value: Tensor) -> bool:
    """Whether a tensor is a plain one on the CPU, with a place in memory for each number."""
    return (
        value.layout == torch.strided
        and not value.is_quantized
        and not value.is_nested
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == 3 and all(_is_number(value) for value in row)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
