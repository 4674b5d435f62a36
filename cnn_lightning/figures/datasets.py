"""The numbers of a data set: images per class, and the values of its channels."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from cnn_lightning.figures.style import (
    BLUE,
    GREEN,
    GREY,
    LINE_STYLES,
    ORANGE,
    VERMILION,
    new_figure,
)

MAX_CLASSES = 40

_SPLIT_COLOURS = (BLUE, ORANGE, GREEN)
_HATCHES = ("", "///", "...")
_NAME_LETTERS = 28
# channel names and colours; each has a line style of its own too
_CHANNELS = {
    1: (("grey", "black"),),
    3: (("red", VERMILION), ("green", GREEN), ("blue", BLUE)),
}
_INTERVALS: dict[str, dict[str, Any]] = {
    "computed from the images": {"marker": "o", "linestyle": "-"},
    "constants used": {"marker": "s", "linestyle": "--", "markerfacecolor": "white"},
}
# one value this many times as frequent as the middle one leaves the others no height
_LOG_RATIO = 30
# below the rarest value, which is else as high as the axis, and above the most frequent
_LOG_MARGIN = 2
# fewer powers of ten are too few ticks
_FEW_DECADES = 100


def channel_names(count: int) -> list[str]:
    """Names of an image's colour channels: grey, or red, green and blue; else numbers."""
    if count in _CHANNELS:
        return [name for name, _ in _CHANNELS[count]]
    return [f"channel {number}" for number in range(count)]


def draw_class_balance(
    counts: Mapping[str, Sequence[int]], names: Sequence[str], title: str
) -> Figure:
    """Draw the number of images of each class as bars, one panel for each split.

    Args:
        counts: Splits, one to three, and the images of each class in them.
        names: K class names. Of more than 40 classes the 20 with the most and the 20 with the
            fewest images of the first split are drawn, and the figure says so.
        title: Above all.

    Returns:
        A figure of 100 dots per inch.

    Raises:
        ValueError: A split has another number of classes than there are names.
    """
    if not 1 <= len(counts) <= len(_HATCHES) or any(len(c) != len(names) for c in counts.values()):
        raise ValueError(f"{len(counts)} splits do not fit, or not all have {len(names)} classes")
    shown = list(range(len(names)))
    if len(names) > MAX_CLASSES:
        first = next(iter(counts.values()))
        shown.sort(key=lambda label: -first[label])
        half = MAX_CLASSES // 2
        shown = [*shown[:half], *shown[-half:]]
        title += (
            f"\n{MAX_CLASSES} of {len(names)} classes: the {half} with the most and the {half} "
            f"with the fewest images in {next(iter(counts))}"
        )
    labels = [
        textwrap.fill(names[label], _NAME_LETTERS, break_long_words=False, break_on_hyphens=False)
        for label in shown
    ]
    num_lines = max(label.count("\n") + 1 for label in labels)
    longest = max(len(line) for label in labels for line in label.splitlines())
    height = 110 + len(shown) * (8 + 14 * num_lines)
    figure = new_figure(max(60 + 7 * longest + 240 * len(counts), 560), max(height, 220))
    figure.suptitle(title, fontsize=10, parse_math=False)
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for number, (axes, (split, values)) in enumerate(zip(panels, counts.items(), strict=True)):
        _draw_bars(axes, [values[label] for label in shown], number)
        axes.set_title(f"{split}: {sum(values):,} images", fontsize=10)
    panels[0].set_yticks(range(len(shown)), labels, fontsize=9, parse_math=False)
    panels[0].set_ylim(len(shown) - 0.4, -0.6)  # the first class on top
    figure.supxlabel("images", fontsize=9)
    return figure


def _draw_bars(axes: Axes, values: Sequence[int], number: int) -> None:
    bars = axes.barh(
        range(len(values)),
        values,
        height=0.75,
        color=_SPLIT_COLOURS[number],
        hatch=_HATCHES[number],
        edgecolor="white",
        linewidth=0,
    )
    axes.bar_label(bars, labels=[f"{value:,}" for value in values], padding=3, fontsize=8)
    axes.set_xlim(0, 1.3 * max(*values, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def draw_channel_statistics(
    histograms: Tensor,
    computed: tuple[Sequence[float], Sequence[float]],
    constants: tuple[Sequence[float], Sequence[float]],
    title: str,
) -> Figure:
    """Draw how often each value occurs in each channel, above means and standard deviations.

    Args:
        histograms: C×256 counts of the values 0..255; each row has one at least.
        computed: Mean and standard deviation of each channel, in units of 0..1.
        constants: The same two as the data module states them.
        title: Above all; may have several lines.

    Returns:
        A figure of 100 dots per inch.

    Raises:
        ValueError: The channels differ in number.
    """
    names = channel_names(len(histograms))
    if {len(values) for values in (*computed, *constants)} != {len(names)}:
        raise ValueError(f"means or standard deviations are not of {len(names)} channels")
    num_lines = title.count("\n") + 1
    figure = new_figure(780, 470 + 52 * len(names) + 15 * num_lines)
    figure.suptitle(title, fontsize=10, parse_math=False)
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=(280, 40 + 52 * len(names)), squeeze=True
    )
    _draw_histograms(upper, histograms, names)
    _draw_intervals(lower, names, computed, constants)
    handles = [
        Line2D([], [], color="black", label=kind, **looks) for kind, looks in _INTERVALS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _colour(names: Sequence[str], channel: int) -> str:
    return _CHANNELS[len(names)][channel][1] if len(names) in _CHANNELS else GREY


def _draw_histograms(axes: Axes, histograms: Tensor, names: Sequence[str]) -> None:
    shares = histograms.double() / histograms.sum(1, keepdim=True)  # C×256
    edges = (torch.arange(257).numpy() - 0.5) / 255
    for channel, name in enumerate(names):
        axes.stairs(
            shares[channel].numpy(),
            edges,
            label=name,
            color=_colour(names, channel),
            linestyle=LINE_STYLES[channel % len(LINE_STYLES)],
            linewidth=1.2,
        )
    axes.set_ylabel("share of the values")
    if (shares.amax() > _LOG_RATIO * shares.median()).item():
        axes.set_yscale("log", nonpositive="clip")  # the sides of a bin go down to the axis
        axes.set_ylabel("share of the values (logarithmic)")
        least, most = float(shares[shares > 0].min()), float(shares.max())
        axes.set_ylim(least / _LOG_MARGIN, most * _LOG_MARGIN)
        few = most < _FEW_DECADES * least
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.tick_params(axis="x", labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) > 1:
        axes.legend(title="channel", frameon=False)


def _draw_intervals(
    axes: Axes,
    names: Sequence[str],
    computed: tuple[Sequence[float], Sequence[float]],
    constants: tuple[Sequence[float], Sequence[float]],
) -> None:
    """From mean - std to mean + std, the computed above the constants, numbers beside them."""
    kinds = zip((computed, constants), (-0.17, 0.17), _INTERVALS.values(), strict=True)
    for (means, stds), shift, looks in kinds:
        for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
            bar = axes.errorbar(
                mean,
                channel + shift,
                xerr=std,
                color=_colour(names, channel),
                capsize=4,
                **looks,
            )
            bar[2][0].set_linestyle(looks["linestyle"])
            axes.text(
                1.01,
                channel + shift,
                f"{mean:.4f} ± {std:.4f}",
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=9,
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("value, 0 being black and 1 the brightest")
    axes.set_title("mean ± standard deviation", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
