"""Many small pictures in rows and columns, each with a few words: one image and some texts.

Drawn as one array, not as one matplotlib axes each, which would take a hundred times as long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from cnn_lightning.figures.style import DPI

Pixels = NDArray[np.uint8]

# all lengths in pixels
_GAP = 6
_MARGIN = 10
_LEAST_SIDE, _GREATEST_SIDE = 56, 112
_FONT = 8
# of all tiles that are not enlarged: a PNG of less than 1 MB, even if they are noise
_MAX_PIXELS = 360_000


@dataclass(frozen=True)
class Tile:
    """A small picture and what stands above it.

    Args:
        pixels: h×w×3 uint8; all tiles of a figure are shown equally large.
        head: Short lines of text.
    """

    pixels: Pixels
    head: str = ""


def image_pixels(image: Tensor) -> Pixels:
    """An image C×H×W uint8, C 1 or 3, as H×W×3."""
    pixels: Pixels = image.cpu().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels


def map_pixels(values: Tensor, low: float, high: float, colours: str = "viridis") -> Pixels:
    """Numbers H×W as the colours H×W×3 of a matplotlib map that runs from `low` to `high`."""
    span = high - low
    scaled = (values.cpu().double() - low) / span if span > 0 else torch.zeros_like(values)
    # what is no number is drawn in the lowest colour
    places = (scaled.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    pixels: Pixels = _colour_table(colours)[places]
    return pixels


@cache
def _colour_table(colours: str) -> Pixels:
    """A colour map as 256×3."""
    table: Pixels = (colormaps[colours](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return table


def describe_range(low: float, high: float) -> str:
    """Both ends of a scale, to three digits: `-0.12 … 3.4`."""
    return f"{describe_number(low)} … {describe_number(high)}"


def describe_number(number: float) -> str:
    """A number to three digits, small ones as 1.2e-03."""
    return f"{number:.3g}" if abs(number) >= 0.01 or number == 0 else f"{number:.1e}"


def draw_tiles(
    title: str, rows: Sequence[Sequence[Tile | None]], names: Sequence[str] | None = None
) -> Figure:
    """Draw tiles in rows.

    Args:
        title: Lines above all.
        rows: Rows of equal length; `None` leaves a place empty.
        names: What stands left of each row.

    Returns:
        A figure as large as its tiles and words need, 100 dots per inch.
    """
    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]  # as matplotlib has it

    def write(words: str, size: int = _FONT, **how: Any) -> tuple[Text, int, int]:
        text = figure.text(0, 0, words, fontsize=size, parse_math=False, linespacing=1.15, **how)
        if not words:
            return text, 0, 0
        extent = text.get_window_extent(renderer)
        return text, math.ceil(extent.width), math.ceil(extent.height)

    heading = write(title, 10, ha="left", va="top")
    labels = [write(name, ha="right", va="center") for name in names or [""] * len(rows)]
    heads = [
        [write(tile.head if tile else "", ha="center", va="bottom") for tile in row] for row in rows
    ]
    tile_height, tile_width = _shown_size(rows)
    column = max([tile_width, *(width for row in heads for _, width, _ in row)]) + _GAP
    left = _MARGIN + max(width for _, width, _ in labels) + _GAP
    full_width = max(left + column * max(map(len, rows)) + _MARGIN, heading[1] + 2 * _MARGIN)
    top = _MARGIN + heading[2] + _GAP
    tops = []  # of each row's tiles, from above
    for row_heads in heads:
        space = max(height for _, _, height in row_heads)
        top += space + (_GAP if space else 0)
        tops.append(top)
        top += tile_height + _GAP
    full_height = top + _MARGIN
    figure.set_size_inches((full_width + 0.01) / DPI, (full_height + 0.01) / DPI)
    sheet = np.full((full_height, full_width, 3), 255, dtype=np.uint8)

    def place(text: Text, x: float, y: float) -> None:
        text.set_position((x / full_width, 1 - y / full_height))

    place(heading[0], _MARGIN, _MARGIN)
    for row, texts, label, upper in zip(rows, heads, labels, tops, strict=True):
        place(label[0], left - _GAP, upper + tile_height / 2)
        for number, (tile, text) in enumerate(zip(row, texts, strict=True)):
            middle = left + number * column + (column - _GAP) // 2
            place(text[0], middle, upper - 2)
            if tile is not None:
                start = middle - tile_width // 2
                sheet[upper : upper + tile_height, start : start + tile_width] = _enlarge(
                    tile.pixels, tile_height, tile_width
                )
    figure.add_artist(_Sheet(sheet))
    return figure


class _Sheet(Artist):
    """Pixels that cover a figure, drawn as they are: `figimage` would resample them at length."""

    def __init__(self, pixels: Pixels) -> None:
        super().__init__()
        opaque = np.full((*pixels.shape[:2], 1), 255, dtype=np.uint8)
        self._pixels = np.concatenate([pixels, opaque], 2)[::-1]  # the renderer starts below

    @override
    def draw(self, renderer: RendererBase) -> None:
        renderer.draw_image(renderer.new_gc(), 0, 0, self._pixels)


def _shown_size(rows: Sequence[Sequence[Tile | None]]) -> tuple[int, int]:
    """Height and width of every tile: whole multiples of the largest, or all made smaller."""
    shapes = [tile.pixels.shape for row in rows for tile in row if tile is not None]
    height, width = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    factor: float = math.ceil(_LEAST_SIDE / max(height, width))
    if factor == 1:
        count = sum(tile is not None for row in rows for tile in row)
        least_area = math.sqrt(_MAX_PIXELS / (count * height * width))
        factor = min(1, _GREATEST_SIDE / max(height, width), least_area)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _enlarge(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels at another size: sharp squares when enlarged, means of squares when made smaller."""
    if height >= pixels.shape[0] and width >= pixels.shape[1]:
        rows, columns = (
            np.floor((np.arange(side) + 0.5) * (before / side)).astype(np.intp)
            for side, before in zip((height, width), pixels.shape[:2], strict=True)
        )
        larger: Pixels = pixels[rows[:, None], columns]
        return larger
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized: Pixels = (
        F.interpolate(planes, (height, width), mode="area")[0]
        .permute(1, 2, 0)
        .round()
        .to(torch.uint8)
        .numpy()
    )
    return resized
