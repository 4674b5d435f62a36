"""How often a classifier is right, class by class, and whether it knows how often."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from torch import Tensor

from cnn_lightning.figures.confusion import measure
from cnn_lightning.figures.intervals import wilson_interval
from cnn_lightning.figures.style import BLUE, GREY, SKY, VERMILION, new_figure

# half of them the least and half the most accurate
MAX_CLASSES = 100

_INTERVAL: dict[str, Any] = {
    "fmt": "o",
    "color": BLUE,
    "markersize": 4,
    "capsize": 2.5,
    "linewidth": 1.2,
}

# lengths in pixels
_ROW = 20
_AXIS = 420
_MARGIN = 130


def draw_class_accuracy(correct: Tensor, counts: Tensor, class_names: Sequence[str]) -> Figure:
    """Draw the share of each class's images that was classified correctly, the lowest first.

    With 95 % Wilson intervals (see `wilson_interval`) and the mean over the classes that have
    images. Of more than 100 classes, the 50 least and the 50 most accurate are shown.

    Args:
        correct: Correctly classified images of each class, K integer.
        counts: All images of each class, K integer.
        class_names: K names.

    Raises:
        ValueError: The lengths differ, or no class has images.
    """
    if not len(correct) == len(counts) == len(class_names) or counts.sum() == 0:
        raise ValueError(
            f"{len(correct)} and {len(counts)} counts of {len(class_names)} classes, "
            f"{int(counts.sum())} images"
        )
    correct, counts = correct.cpu(), counts.cpu()
    rows = _choose_rows(correct, counts)
    names = ["" if isinstance(row, str) else class_names[row] for row in rows]
    told = [row if isinstance(row, str) else _tell(row, correct, counts) for row in rows]
    sides = measure(names, 9)[0] + measure(told, 9)[0]
    figure = new_figure(_AXIS + sides + 80, _ROW * len(rows) + _MARGIN)
    axes = figure.add_subplot()
    shown = [row if isinstance(row, int) and counts[row] > 0 else None for row in rows]
    _draw_accuracies(axes, correct, counts, shown)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), names, fontsize=9, parse_math=False)
    axes.set_ylabel("class")
    for place, line in enumerate(told):
        axes.text(1.02, place, line, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_reliability(
    counts: Tensor, correct: Tensor, confidence: Tensor, calibration_error: float
) -> Figure:
    """Draw accuracy against confidence in bins of equal width, and how many images are in each.

    A reliability diagram (Guo et al. 2017, arXiv:1706.04599, figure 1). The bars are the accuracy
    of each bin, the dots the same at its mean confidence, with 95 % Wilson intervals: below the
    diagonal the classifier is surer than it should be.

    Args:
        counts: Images of each bin, B integer.
        correct: Correctly classified images of each bin, B integer.
        confidence: Sum of the confidences of each bin, B float.
        calibration_error: The expected calibration error, 0..1.

    Raises:
        ValueError: The lengths differ, or there are no images.
    """
    if not len(counts) == len(correct) == len(confidence) or counts.sum() == 0:
        raise ValueError(
            f"{len(counts)}, {len(correct)} and {len(confidence)} bins with "
            f"{int(counts.sum())} images"
        )
    counts, correct, confidence = counts.cpu(), correct.cpu(), confidence.cpu().double()
    figure = new_figure(640, 720)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_bins(above, counts, correct, confidence)
    _draw_histogram(below, counts)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    total = int(counts.sum())
    figure.suptitle(
        f"expected calibration error {calibration_error:.1%} ({len(counts)} bins)\n"
        f"accuracy {int(correct.sum()) / total:.1%}, "
        f"mean confidence {float(confidence.sum()) / total:.1%}, {total:,} images",
        fontsize=11,
    )
    return figure


def _draw_bins(axes: Axes, counts: Tensor, correct: Tensor, confidence: Tensor) -> None:
    num_bins = len(counts)
    filled = counts > 0
    centres = (torch.arange(num_bins) + 0.5) / num_bins
    # numpy's, since matplotlib computes with what it is given
    accuracy = (correct / counts)[filled].numpy()
    arms = _arms(correct[filled], counts[filled])
    axes.bar(
        centres[filled].numpy(),
        accuracy,
        1 / num_bins,
        color=SKY,
        alpha=0.5,
        edgecolor="white",
        label="accuracy of the bin",
    )
    axes.errorbar(
        (confidence / counts)[filled].numpy(),
        accuracy,
        yerr=arms,
        label="at its mean confidence, 95% interval",
        **_INTERVAL,
    )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as sure as right")
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _draw_histogram(axes: Axes, counts: Tensor) -> None:
    num_bins = len(counts)
    centres = (torch.arange(num_bins) + 0.5) / num_bins
    axes.bar(centres.numpy(), counts.numpy(), 1 / num_bins, color=GREY, edgecolor="white")
    for centre, count in zip(centres.tolist(), counts.tolist(), strict=True):
        if count == 0:
            continue
        axes.annotate(
            f"{count:,}" if count < 100_000 else f"{count / 1000:,.0f}k",
            (centre, count),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_ylim(0, 1.15 * float(counts.max()))
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def _choose_rows(correct: Tensor, counts: Tensor) -> list[int | str]:
    """The classes to show, in order, and in place of those left out a line that says so."""
    present = int((counts > 0).sum())
    # those without images have no accuracy and come last
    accuracy = (correct / counts.double()).nan_to_num(nan=2)
    order: list[int] = accuracy.argsort(stable=True).tolist()
    if len(order) <= MAX_CLASSES:
        return [*order]
    rows: list[int | str] = [*order[:present]]
    if present > MAX_CLASSES:
        half, left_out = MAX_CLASSES // 2, present - MAX_CLASSES
        rows[half:-half] = [f"… {left_out:,} between …"]
    if present < len(order):
        rows.append(f"{len(order) - present:,} more: no images")
    return rows


def _tell(row: int, correct: Tensor, counts: Tensor) -> str:
    if counts[row] == 0:
        return "no images"
    return f"{int(correct[row]):,} of {int(counts[row]):,}"


def _draw_accuracies(
    axes: Axes, correct: Tensor, counts: Tensor, rows: Sequence[int | None]
) -> None:
    places = [place for place, row in enumerate(rows) if row is not None]
    chosen = torch.tensor([row for row in rows if row is not None])
    accuracy = correct / counts.double()
    arms = _arms(correct[chosen], counts[chosen])
    shown = accuracy[chosen].numpy()
    axes.errorbar(shown, places, xerr=arms, label="accuracy with 95% interval", **_INTERVAL)
    mean = float(accuracy.nanmean())
    axes.axvline(mean, color=VERMILION, linestyle="--", label=f"mean over classes {mean:.1%}")
    axes.set_xlim(*_limits(float((shown - arms[0]).min())))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("test images of the class classified correctly")
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _arms(correct: Tensor, counts: Tensor) -> Any:
    """Lengths of the error bars as a 2×N array; rounding must not make them negative."""
    low, high = wilson_interval(correct, counts)
    accuracy = correct / counts.double()
    return torch.stack([accuracy - low, high - accuracy]).clamp(min=0).numpy()


def _limits(lowest: float) -> tuple[float, float]:
    """Ends of the axis of accuracies: whole tens of percent, a little room at 100 %."""
    start = min(int(lowest * 10), 9) / 10
    return start - 0.02 * (1 - start), 1 + 0.02 * (1 - start)
