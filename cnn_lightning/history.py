"""What a run left behind, read back from its folder: curves, layers' statistics, settings, size."""

import csv
import statistics
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torch import Tensor

from cnn_lightning.checkpoint_content import Content
from cnn_lightning.errors import UserError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.runs import RunFolder
from cnn_lightning.settings import read_settings

Curve = list[tuple[float, float]]

# entries of a state dict that are counted and averaged, not learnt (batch norm's); for checkpoints
# that do not say how many parameters there are
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# metrics are single precision: 0.9 is logged as 0.89999998
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class History:
    """A run as it went. Epochs count from 1, and 1.5 is in the middle of the second.

    Args:
        folder: Where it is.
        val_accuracy: Epoch and accuracy (0..1) of every validation, in order; at least one.
        train_loss: Epoch and mean loss over its steps.
        test_accuracy: 0..1, that of `best.ckpt` if several were tested, `None` if none was.
        images_per_second: Median over the run, `None` if it was not logged.
        dead: Per ReLU layer the share (0..1) of channels that are never active, at the end.
        saturated: Per Tanh layer the share (0..1) of saturated outputs, at the end.
        gradient_norm: Per layer, at the end.
        settings: The newest config, flat, with dots in the keys; `None` if there is none.
        num_parameters: Of the network, `None` if there is no checkpoint.
        test: All that was measured in the test of `test_accuracy`, by its name after `test/`.
        num_tests: Checkpoints that were tested.
    """

    folder: RunFolder
    val_accuracy: Curve
    train_loss: Curve
    test_accuracy: float | None
    images_per_second: float | None
    dead: dict[str, float]
    saturated: dict[str, float]
    gradient_norm: dict[str, float]
    settings: dict[str, Any] | None
    num_parameters: int | None
    test: dict[str, float] = field(default_factory=dict)
    num_tests: int = 0

    @property
    def best(self) -> tuple[float, float]:
        """Epoch and accuracy of the best validation, the first of equals, as in `best.ckpt`."""
        return max(self.val_accuracy, key=lambda point: point[1])

    @property
    def final(self) -> tuple[float, float]:
        """Epoch and accuracy of the last validation."""
        return self.val_accuracy[-1]

    def epochs_to(self, accuracy: float) -> float | None:
        """The epoch of the first validation with this accuracy or more, `None` if there is none."""
        reached = (epoch for epoch, a in self.val_accuracy if a >= accuracy - _TOLERANCE)
        return next(reached, None)


@dataclass(frozen=True)
class _Row:
    """What was logged at one optimizer step, in an epoch counted from 0."""

    step: int
    epoch: int
    values: dict[str, float]
    has_epoch: bool = True  # in the table


def read_history(folder: RunFolder) -> History:
    """Read a run, finished or not.

    Raises:
        UserError: It has no metrics, was never validated, or a file is damaged.
    """
    rows, evaluations = _read_rows(folder)
    validated = [(row.step, row.epoch, row.values["val/accuracy"]) for row in rows
                 if "val/accuracy" in row.values]  # fmt: skip
    if not validated:
        raise UserError(
            f"{folder.path} was never validated: no val/accuracy in metrics.csv",
            "wait for its first epoch to end, or leave it out",
        )
    best_step = max(validated, key=lambda point: point[2])[0]
    tests = {row.step: row.values for row in evaluations if "test/accuracy" in row.values}
    # a checkpoint counts the steps done, a row the steps before it
    test = tests.get(best_step + 1, next(reversed(tests.values()), {}))
    speeds = [r.values["images_per_second"] for r in rows if "images_per_second" in r.values]
    return History(
        folder=folder,
        val_accuracy=_number_epochs([(epoch, value) for _, epoch, value in validated]),
        train_loss=_mean_loss(rows),
        test_accuracy=test.get("test/accuracy"),
        images_per_second=statistics.median(speeds) if speeds else None,
        dead=_at_the_end(rows, "activations/dead/"),
        saturated=_at_the_end(rows, "activations/saturated/"),
        gradient_norm=_at_the_end(rows, "gradient_norm/"),
        settings=_read_settings(folder),
        num_parameters=_count_parameters(folder),
        test={name[5:]: value for name, value in test.items() if name.startswith("test/")},
        num_tests=len(tests),
    )


def _read_rows(folder: RunFolder) -> tuple[list[_Row], list[_Row]]:
    """The rows of the training, and those of later evaluations."""
    if not folder.metrics.is_file():
        raise UserError(
            f"{folder.path} has no metrics.csv", "train it for an epoch, or leave it out"
        )
    training: list[_Row] = []
    evaluations: list[_Row] = []
    with folder.metrics.open(newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            for row in map(_parse, reader):
                if any(name.startswith("test/") for name in row.values):
                    evaluations.append(row)
                if not _is_evaluation(row, training):
                    epoch = max([row.epoch, *(before.epoch for before in training[-1:])])
                    training.append(_Row(row.step, epoch, row.values))
        except (TypeError, ValueError, KeyError, csv.Error) as error:
            raise UserError(
                f"{folder.metrics}, line {reader.line_num} is no row of metrics",
                "use a copy that is whole, or leave the run out",
            ) from error
    return training, evaluations


def _parse(line: dict[str, Any]) -> _Row:
    if None in line.values():
        raise ValueError("the row is too short")
    named = {name: value for name, value in line.items() if name not in ("step", "epoch")}
    values = {name: float(value) for name, value in named.items() if value}
    return _Row(int(line["step"]), int(line["epoch"] or 0), values, line["epoch"] != "")


def _is_evaluation(row: _Row, training: list[_Row]) -> bool:
    """Whether `validate` or `test` wrote a row, of a checkpoint of the steps before it.

    They write no epoch. In older tables it is 0, whatever the checkpoint's.
    """
    if any(name.startswith("train/") for name in row.values) or not training:
        return False
    if not row.has_epoch and any(name.startswith(("val/", "test/")) for name in row.values):
        return True
    before = training[-1]
    repeats = row.step == before.step + 1 and "val/accuracy" in before.values
    return row.epoch < before.epoch or (row.epoch == 0 and repeats)


def _number_epochs(validated: list[tuple[int, float]]) -> Curve:
    """Epochs from 1; of four validations in the first, the second is at 0.5."""
    most = max(Counter(epoch for epoch, _ in validated).values())
    seen: Counter[int] = Counter()
    curve = []
    for epoch, value in validated:
        seen[epoch] += 1
        curve.append((epoch + seen[epoch] / most, value))
    return curve


def _mean_loss(rows: list[_Row]) -> Curve:
    """Means over the epochs; a row's loss is the mean since the row before it."""
    losses = [row for row in rows if "train/loss" in row.values]
    sums: dict[int, float] = {}
    steps: Counter[int] = Counter()
    for before, row in pairwise([_Row(-1, 0, {}), *losses]):
        weight = row.step - before.step
        sums[row.epoch] = sums.get(row.epoch, 0) + weight * row.values["train/loss"]
        steps[row.epoch] += weight
    return [(epoch + 1, sums[epoch] / steps[epoch]) for epoch in sums]


def _at_the_end(rows: list[_Row], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for row in rows  # a later row replaces an earlier one's value
        for name, value in row.values.items()
        if name.startswith(prefix)
    }


def _read_settings(folder: RunFolder) -> dict[str, Any] | None:
    path = folder.newest_config()
    if path is None:
        return None
    return _flatten(read_settings(path))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _count_parameters(folder: RunFolder) -> int | None:
    paths = (folder.checkpoints / "best.ckpt", folder.checkpoints / "last.ckpt")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    content = Content(load_checkpoint(path), path)
    known = content.num_parameters()
    if known is not None:
        return known
    weights: dict[str, Tensor] = content.values.get("state_dict", {})
    content.check_state(weights)
    return sum(
        value.numel()
        for name, value in weights.items()
        if name.startswith("network.") and not name.endswith(_BUFFERS)
    )
