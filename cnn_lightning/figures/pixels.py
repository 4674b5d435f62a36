"""Matrices shown pixel by pixel, with their scale, some pixels in a frame."""

import itertools

from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.patches import Rectangle
from torch import Tensor

from cnn_lightning.figures.numbers import spell
from cnn_lightning.figures.page import Page
from cnn_lightning.figures.style import ORANGE

# left, top, width and height in pixels
Box = tuple[float, float, float, float]

SIGNED = "RdBu_r"  # white in its middle, told apart by the colour-blind
# beside a matrix, for the colours of its scale and their numbers
SCALE_WIDTH = 74


def fit_box(left: float, top: float, height: int, width: int, side: int) -> Box:
    """A box of an image's proportions, at most `side` wide and high.

    Small images grow by a whole factor, so that all their pixels are equal.

    Example:
        >>> fit_box(0, 0, 28, 14, 320)
        (0, 0, 154, 308)
    """
    factor = side / max(height, width)
    if factor >= 1:
        factor = int(factor)
    return left, top, max(1, round(width * factor)), max(1, round(height * factor))


def show_pixels(
    page: Page, box: Box, pixels: Tensor, colours: Colormap, limits: tuple[float, float]
) -> Axes:
    """Show a matrix in a box, with the scale of its colours to the right.

    Args:
        page: Where to.
        box: Of the matrix's proportions; the scale takes `SCALE_WIDTH` more.
        pixels: H×W float.
        colours: A colour map.
        limits: What its ends stand for.
    """
    left, top, width, height = box
    axes = page.axes(*box)
    picture = axes.imshow(
        pixels.numpy(),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest" if width >= pixels.shape[1] else "antialiased",
        aspect="auto",  # the box has the proportions already
    )
    axes.set_xticks([])
    axes.set_yticks([])
    bar = page.axes(left + width + 8, top, 10, max(height, 60))
    page.figure.colorbar(picture, cax=bar)
    ticks = sorted({limits[0], 0.0, limits[1]})
    bar.set_yticks(ticks, [spell(tick) for tick in ticks], fontsize=8)
    bar.tick_params(length=2, pad=2)
    return axes


def frame_pixels(axes: Axes, rows: list[int], columns: list[int]) -> None:
    """Put an orange frame around neighbouring pixels, or one around each of scattered ones.

    Args:
        axes: As `show_pixels` returns them.
        rows: At least one.
        columns: At least one.
    """
    steps = {b - a for places in (rows, columns) for a, b in itertools.pairwise(places)}
    whole = steps <= {1}
    tops, lefts = ([rows[0]], [columns[0]]) if whole else (rows, columns)
    height, width = (len(rows), len(columns)) if whole else (1, 1)
    first, last = axes.get_xlim()
    side = axes.get_window_extent().width / (last - first)  # of one pixel
    inner = 2.2 if whole else 1.2
    gap = inner / side  # outside the pixels that it frames
    for top in tops:
        for left in lefts:
            for line_width, colour in ((inner + 1.6, "black"), (inner, ORANGE)):
                corner = (left - 0.5 - gap, top - 0.5 - gap)
                frame = Rectangle(corner, width + 2 * gap, height + 2 * gap, fill=False)
                frame.set(edgecolor=colour, linewidth=line_width, clip_on=False)
                axes.add_patch(frame)
