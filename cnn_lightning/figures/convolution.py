"""An operation on an image: input, kernel, output, and one output value worked out."""

import matplotlib as mpl
import torch
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from cnn_lightning.figures.numbers import MINUS, draw_numbers, spell
from cnn_lightning.figures.operation_example import (
    LARGEST_WINDOW,
    OperationExample,
    OperationName,
    arithmetic,
    span,
)
from cnn_lightning.figures.page import Page
from cnn_lightning.figures.pixels import (
    SCALE_WIDTH,
    SIGNED,
    Box,
    fit_box,
    frame_pixels,
    show_pixels,
)
from cnn_lightning.figures.style import SKY, show_image

# all lengths in pixels
_LEAST_WIDTH = 1100
_MARGIN = 30
_PANEL = 320
_COLOUR_PANEL = 200
_TOP = 88
_LINE = 20
_GAP = 30
_KERNEL = 280
_WORD = 240

_HEADINGS: dict[OperationName, tuple[str, str, str]] = {
    "convolution": ("pixels under the kernel", "kernel", "products"),
    "transposed": ("pixels that reach it", "with these numbers", "products"),
    "max_pooling": ("pixels under the window", "", ""),
    "average_pooling": ("pixels under the window", "", ""),
}
_NOTES: dict[OperationName, str] = {
    "convolution": "The kernel lies on the image as it is written. Mathematics would flip it first "
    "and calls this cross-correlation; every network calls it convolution.",
    "transposed": "Every input pixel stamps the kernel, times its value, onto the output, one "
    "stride apart; where stamps overlap, they add up.",
    "max_pooling": "Nothing is learnt here: of every window the largest pixel stays.",
    "average_pooling": "Nothing is learnt here: every window becomes its mean.",
}


def draw_operation(example: OperationExample) -> Figure:
    """Draw input, kernel and output of an operation, its size and one value worked out.

    Pixels under the kernel, and what they become, have an orange frame.

    Args:
        example: What to show.

    Returns:
        A figure of 100 dots per inch.

    Raises:
        ValueError: The window is larger than 7×7.
    """
    if max(example.values.shape) > LARGEST_WINDOW:
        raise ValueError(f"{example.values.shape} numbers are more than can be read")
    lines = arithmetic(example)
    cell = _cell(example.values)
    work = 54 + cell * len(example.rows) + 16 if example.values.numel() else 34
    middle = _TOP + _panels_height(example) + 70
    page = Page(_width(example, cell), middle + work + 48 + _LINE * (len(lines) + 4))
    page.text(_MARGIN, 18, example.title, fontsize=14, fontweight="bold")
    _draw_panels(page, example, top=_TOP)
    row, column = example.place
    top = middle
    page.text(
        _MARGIN,
        top,
        f"The output value in row {row}, column {column}, both counted from 0",
        fontsize=12,
        fontweight="bold",
    )
    _draw_work(page, example, top + 54, cell)
    top += work
    for line in lines:
        page.text(_MARGIN, top, line)
        top += _LINE
    top += 10
    for side, formula in zip(("side", "height", "width"), example.formulas, strict=True):
        page.text(_MARGIN, top, f"output {side} = {formula.replace('-', MINUS)}")
        top += _LINE
    page.text(_MARGIN, top + 8, _NOTES[example.operation], style="italic", fontsize=9)
    return page.figure


def _draw_panels(page: Page, example: OperationExample, top: int) -> None:
    """The upper row: image, channel, kernel, output."""
    height, width = example.image.shape[1:]
    left = _MARGIN
    if len(example.image) == 3:
        box = fit_box(left, top, height, width, _COLOUR_PANEL)
        show_image(page.axes(*box), example.image)
        page.text(left, top - 24, f"image, {height}×{width}")
        left += _COLOUR_PANEL + _GAP
    name = "input" if len(example.image) == 1 else f"its {example.channel_name} channel"
    page.text(left, top - 24, f"{name}, {height}×{width}")
    _draw_input(page, example, left, top)
    left += _PANEL + SCALE_WIDTH
    if example.kernel is not None:
        left = _draw_kernel(page, example.kernel, left, top) + _GAP
    source = "" if len(example.image) == 1 else f" of the {example.channel_name} channel"
    page.text(left, top - 24, f"output{source}, {'×'.join(map(str, example.output.shape))}")
    _draw_output(page, example, left, top)


def _draw_input(page: Page, example: OperationExample, left: int, top: int) -> None:
    padding, padded = example.padding, example.padded
    height, width = example.image.shape[1:]
    box = _fit(padded, left, top)
    axes = show_pixels(page, box, padded.masked_fill(padded.isinf(), torch.nan), _grey(), (0, 255))
    places = [span("rows", example.rows), span("columns", example.columns)]
    are_listed = any("," in place for place in places)  # scattered: a line of their own
    below = places if are_listed else [", ".join(places)]
    if padding:
        edge = (padding - 0.5, padding - 0.5)
        axes.add_patch(Rectangle(edge, width, height, fill=False, color=SKY, linestyle="--"))
        worth = f", {MINUS}∞ (blue)" if padded.isinf().any() else ""
        below.append(f"beyond the dashed edge: padding{worth}")
    if example.rows and example.columns:
        rows = [row + padding for row in example.rows]
        columns = [column + padding for column in example.columns]
        frame_pixels(axes, rows, columns)
    page.text(left, top + box[3] + 8, "\n".join(below), fontsize=9, linespacing=1.4)


def _draw_kernel(page: Page, kernel: Tensor, left: int, top: int) -> int:
    """The kernel's numbers; returns where they end."""
    cell = _kernel_cell(kernel)
    width, height = cell * kernel.shape[1], cell * kernel.shape[0]
    page.text(left, top - 24, f"kernel, {'×'.join(map(str, kernel.shape))}")
    most = float(kernel.abs().max()) or 1.0
    texts = [[spell(number, digits=3) for number in row] for row in kernel.tolist()]
    axes = page.axes(left, top, width, height)
    draw_numbers(axes, kernel, texts, cell=cell, colours=SIGNED, limits=(-most, most))
    total = spell(float(kernel.double().sum()) if kernel.numel() else 0.0)
    page.text(left, top + height + 8, f"sum {total}", fontsize=9)
    return left + max(width, 90)


def _draw_output(page: Page, example: OperationExample, left: int, top: int) -> None:
    output = example.output
    box = _fit(output, left, top)
    low, high = float(output.min()), float(output.max())
    most = max(-low, high)
    if low < 0:
        axes = show_pixels(page, box, output, mpl.colormaps[SIGNED], (-most, most))
    else:
        axes = show_pixels(page, box, output, _grey(), (0, max(most, 255)))
    row, column = example.place
    frame_pixels(axes, [row], [column])
    below = (
        f"row {row}, column {column}: {spell(example.result)}\nvalues {spell(low)} to {spell(high)}"
    )
    page.text(left, top + box[3] + 8, below, fontsize=9, linespacing=1.4)


def _draw_work(page: Page, example: OperationExample, top: int, cell: int) -> None:
    """The lower row: pixels × kernel = products, as grids."""
    values, weights = example.values, example.weights
    if not values.numel():
        return
    headings = _HEADINGS[example.operation]
    scale = max(255.0, float(values.masked_fill(values.isinf(), 0).max()))
    parts: list[tuple[str, Tensor, Colormap, tuple[float, float]]] = [
        (headings[0], values, _grey(), (0, scale))
    ]
    if weights is not None:
        products = values * weights
        for heading, numbers in ((headings[1], weights), (headings[2], products)):
            most = float(numbers.abs().max()) or 1.0
            parts.append((heading, numbers, mpl.colormaps[SIGNED], (-most, most)))
    left = _MARGIN
    height, width = cell * len(values), cell * values.shape[1]
    for sign, (heading, numbers, colours, limits) in zip(("", "×", "="), parts, strict=False):
        page.text(left, top + height / 2, sign, fontsize=18, ha="center", va="center")
        left += _GAP if sign else 0
        page.text(left, top - 22, heading, fontsize=9)
        axes = page.axes(left, top, width, height)
        texts = [[spell(number, digits=3) for number in row] for row in numbers.tolist()]
        draw_numbers(axes, numbers, texts, cell=cell, colours=colours, limits=limits)
        left += max(width, 150) + _GAP
    word = {"max_pooling": "largest", "average_pooling": "mean"}.get(example.operation, "sum")
    text = f"{word}: {spell(example.result)}"
    page.text(left, top + height / 2, text, fontsize=14, va="center", fontweight="bold")


def _grey() -> Colormap:
    """Black to white; infinite padding is blue."""
    return mpl.colormaps["gray"].with_extremes(bad="#9ecae1")


def _fit(pixels: Tensor, left: float = 0, top: float = 0) -> Box:
    return fit_box(left, top, pixels.shape[0], pixels.shape[1], _PANEL)


def _width(example: OperationExample, cell: int) -> int:
    """Of the whole figure: what its upper or its lower row needs."""
    panels = 2 * (_PANEL + SCALE_WIDTH)
    panels += 0 if example.kernel is None else _KERNEL + _GAP
    panels += 0 if len(example.image) == 1 else _COLOUR_PANEL + _GAP
    num_grids = 1 if example.weights is None else 3
    work = num_grids * (max(cell * len(example.columns), 150) + 2 * _GAP) + _WORD
    return max(_LEAST_WIDTH, 2 * _MARGIN + max(panels, work))


def _panels_height(example: OperationExample) -> int:
    sides = [_fit(example.padded)[3], _fit(example.output)[3]]
    sides += [] if example.kernel is None else [_kernel_cell(example.kernel) * len(example.kernel)]
    sides += [] if len(example.image) == 1 else [_COLOUR_PANEL]
    return int(max(sides))


def _kernel_cell(kernel: Tensor) -> int:
    return min(60, _KERNEL // max(kernel.shape))


def _cell(values: Tensor) -> int:
    """Side in pixels of the cells that show these numbers."""
    most = max((*values.shape, 1))
    return 58 if most <= 3 else 50 if most <= 5 else 46
