"""Which class is taken for which."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from cnn_lightning.figures.style import DPI, GREY, new_figure

NUM_PAIRS = 10

# up to so many classes each cell holds its number, and each class its name
_MAX_NUMBERED = 20
_MAX_NAMED = 120

# perceptually uniform, also for the colour-blind (Nuñez et al. 2018, arXiv:1712.01662)
_COLOURS = "cividis"
# the share whose colour is half as light as that of 1
_MIDDLE = 0.25
_NO_IMAGES = "#e8e8e8"
_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)

_TEXT_SIZE = 9  # points
# all other lengths in pixels
_TITLE = 34
_AXIS_NAME = 36
_BAR_GAP, _BAR_WIDTH, _BAR_TEXT = 14, 16, 78
_MARGIN = 14
_LINE = 20


class _Layout(NamedTuple):
    """Where the matrix lies; `size` is that of the class names in points."""

    side: int
    left: float
    below: float
    right: float
    size: float
    rotation: int


def draw_confusion_matrix(counts: Tensor, class_names: Sequence[str]) -> Figure:
    """Draw how many images of each class were taken for which.

    A cell's colour is its share of the row, the images of one true class, on the scale of a square
    root, so that rare mistakes are seen. Up to 20 classes the cells hold their numbers, but for 0;
    beyond, the ten most frequent mistakes are listed beside the matrix, and beyond 120 the axes
    count classes instead of naming them.

    Args:
        counts: K×K integer, rows are true and columns predicted classes.
        class_names: K names.

    Raises:
        ValueError: `counts` is not K×K.
    """
    num_classes = len(class_names)
    if tuple(counts.shape) != (num_classes, num_classes):
        raise ValueError(f"counts {tuple(counts.shape)} are not those of {num_classes} classes")
    counts = counts.cpu()
    numbered, named = num_classes <= _MAX_NUMBERED, num_classes <= _MAX_NAMED
    pairs = [] if numbered else _list_pairs(counts, class_names)
    rows = _row_labels(counts, class_names) if named else []
    columns = class_names if named else []
    layout = _lay_out(counts, rows, columns, pairs)
    width = layout.left + layout.side + layout.right
    height = _TITLE + layout.side + layout.below
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # all is placed here, to the pixel
    side = (layout.side / width, layout.side / height)
    axes = figure.add_axes((layout.left / width, layout.below / height, *side))
    image = _show_shares(axes, counts)
    _name_axes(axes, rows, columns, layout)
    if numbered:
        _write_numbers(axes, counts)
    _add_bar(figure, axes, image, layout.side)
    _write_lines(axes, pairs)
    axes.set_title(_summary(counts), fontsize=11, loc="left")
    return figure


def _lay_out(
    counts: Tensor, rows: Sequence[str], columns: Sequence[str], pairs: Sequence[str]
) -> _Layout:
    num_classes = len(counts)
    if num_classes <= _MAX_NUMBERED:
        number_width = math.ceil(measure([f"{int(counts.max()):,}"], _TEXT_SIZE)[0])
        cell = max(min(110, 480 // num_classes), number_width + 10)
    else:
        cell = max(11, 600 // num_classes) if rows else 1000 // num_classes
    side = cell * num_classes or 1000  # of more than 1000 classes several share a pixel
    size: float = _TEXT_SIZE
    name_width, name_height = measure(columns or ["1000"], size)
    row_width = measure(rows or ["1000"], size)[0]
    if rows and name_height > cell:  # as large as their rows let them be
        size *= cell / name_height
        name_width, name_height = measure(columns, size)
        row_width = measure(rows, size)[0]
    left: float = row_width + _AXIS_NAME
    below: float = name_height + _AXIS_NAME
    rotation = 0
    if rows and name_width > cell - 6:
        rotation = 45 if name_height < 0.6 * cell else 90
        below = name_width + _AXIS_NAME
        if rotation == 45:
            slanted = (name_width + name_height) / math.sqrt(2)
            left, below = max(left, slanted - cell / 2), slanted + _AXIS_NAME
    right: float = _BAR_GAP + _BAR_WIDTH + _BAR_TEXT
    if pairs:
        # the heading is bold, which is wider
        right += max(measure(pairs[1:], _TEXT_SIZE)[0], 1.2 * measure(pairs[:1], _TEXT_SIZE)[0])
    return _Layout(side, left + _MARGIN, below + _MARGIN, right + _MARGIN, size, rotation)


def _show_shares(axes: Axes, counts: Tensor) -> AxesImage:
    shares = (counts / counts.sum(1, keepdim=True)).numpy()  # nan in a row without images
    colours = matplotlib.colormaps[_COLOURS].with_extremes(bad=_NO_IMAGES)
    axes.tick_params(length=2, labelsize=_TEXT_SIZE)
    return axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1), aspect="auto")


def _name_axes(axes: Axes, rows: Sequence[str], columns: Sequence[str], layout: _Layout) -> None:
    if not rows:
        axes.set_xlabel("predicted class, by number")
        axes.set_ylabel("true class, by number")
        return
    look: dict[str, Any] = {"fontsize": layout.size, "parse_math": False}
    slanted: dict[str, Any] = (
        {"ha": "right", "rotation_mode": "anchor"} if layout.rotation == 45 else {}
    )
    axes.set_xticks(range(len(columns)), columns, rotation=layout.rotation, **slanted, **look)
    axes.set_yticks(range(len(rows)), rows, **look)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _write_numbers(axes: Axes, counts: Tensor) -> None:
    shares = counts / counts.sum(1, keepdim=True)
    for row, column in counts.nonzero().tolist():
        axes.text(
            column,
            row,
            f"{int(counts[row, column]):,}",
            ha="center",
            va="center",
            fontsize=_TEXT_SIZE,
            color="black" if shares[row, column] > _MIDDLE else "white",
        )


def _add_bar(figure: Figure, axes: Axes, image: AxesImage, side: int) -> None:
    beside = axes.inset_axes((1 + _BAR_GAP / side, 0, _BAR_WIDTH / side, 1))
    bar = figure.colorbar(image, cax=beside, format=PercentFormatter(1), ticks=_TICKS)
    bar.set_label("share of the true class", fontsize=_TEXT_SIZE)
    beside.tick_params(labelsize=8, length=2)
    bar.outline.set_edgecolor(GREY)


def _write_lines(axes: Axes, lines: Sequence[str]) -> None:
    """Write a heading and lines to the right of the colour bar."""
    for number, line in enumerate(lines):
        offset = (_BAR_GAP + _BAR_WIDTH + _BAR_TEXT, -number * _LINE)
        axes.annotate(
            line,
            (1, 1),
            xytext=(offset[0] * 72 / DPI, offset[1] * 72 / DPI),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=_TEXT_SIZE,
            fontweight="normal" if number else "bold",
            parse_math=False,
        )


def _row_labels(counts: Tensor, class_names: Sequence[str]) -> list[str]:
    return [
        name if total else f"{name} (no images)"
        for name, total in zip(class_names, counts.sum(1).tolist(), strict=True)
    ]


def _summary(counts: Tensor) -> str:
    right, total = int(counts.diagonal().sum()), int(counts.sum())
    return f"{right:,} of {total:,} images right" + (f" ({right / total:.1%})" if total else "")


def _list_pairs(counts: Tensor, class_names: Sequence[str]) -> list[str]:
    """A heading and a line for each of the most frequent mistakes, the most frequent first."""
    mistakes = counts.clone().fill_diagonal_(0).flatten()
    order = mistakes.argsort(descending=True, stable=True)[:NUM_PAIRS]
    lines = []
    for cell in order[mistakes[order] > 0].tolist():
        row, column = divmod(cell, len(class_names))
        of = f"{int(mistakes[cell]):,} of {int(counts[row].sum()):,}"
        lines.append(f"{of}   {class_names[row]} → {class_names[column]}")
    return ["most frequent mistakes, true → predicted" if lines else "no mistakes", *lines]


def measure(texts: Sequence[str], size: float) -> tuple[float, float]:
    """Width and height in pixels of the largest of some texts, drawn in points of `size`."""
    figure = Figure(dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    text = figure.text(0, 0, "", fontsize=size, parse_math=False)
    widest = tallest = 0.0
    for line in texts:
        text.set_text(line)
        extent = text.get_window_extent(renderer)
        widest, tallest = max(widest, extent.width), max(tallest, extent.height)
    return widest, tallest
