"""Many small pictures in rows and columns, each with a few words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from cnn_lightning.figures.sheet import Pixels, Sheet, letter
from cnn_lightning.figures.style import as_visible

# all lengths in pixels
_GAP = 6
_MARGIN = 10
_LEAST_SIDE, _GREATEST_SIDE = 56, 112
_FONT, _TITLE_FONT = 8, 10  # points
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
    """An image C×H×W uint8 as H×W×3; of other than 1 or 3 channels their mean, in grey."""
    pixels: Pixels = as_visible(image).cpu().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels


def map_pixels(values: Tensor, low: float, high: float, colours: str = "viridis") -> Pixels:
    """Numbers …×H×W as colours …×H×W×3 of a matplotlib map that runs from `low` to `high`."""
    span = high - low
    scaled = (values.cpu().double() - low) / span if span > 0 else torch.zeros_like(values)
    # what is no number is drawn in the lowest colour
    places = (scaled.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    pixels: Pixels = _colour_table(colours).take(places, axis=0)
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
) -> Sheet:
    """Draw tiles in rows.

    Args:
        title: Lines above all.
        rows: Rows of equal length; `None` leaves a place empty.
        names: What stands left of each row.

    Returns:
        A sheet as large as its tiles and words need.
    """
    heading = letter(title, _TITLE_FONT, align="left")
    labels = [letter(name, _FONT, align="right") for name in names or [""] * len(rows)]
    heads = [
        [letter(tile.head if tile else "", _FONT, align="center") for tile in row] for row in rows
    ]
    tile_height, tile_width = _shown_size(rows)
    column = max([tile_width, *(head.width for row in heads for head in row)]) + _GAP
    left = _MARGIN + max(label.width for label in labels) + _GAP
    full_width = max(left + column * max(map(len, rows)), heading.width + _MARGIN) + _MARGIN
    top = _MARGIN + heading.height + _GAP
    tops = []  # of each row's tiles, from above
    for row_heads, label in zip(heads, labels, strict=True):
        space = max(head.height for head in row_heads)
        # a name of many lines is higher than a small tile
        beyond = max(0, math.ceil((label.height - tile_height) / 2))
        top += max(space + (_GAP if space else 0), beyond)
        tops.append(top)
        top += tile_height + max(_GAP, beyond + 2)
    sheet = Sheet(top + _MARGIN, full_width)
    sheet.write(heading, _MARGIN, _MARGIN)
    for row, row_heads, label, upper in zip(rows, heads, labels, tops, strict=True):
        sheet.write(label, left - _GAP - label.width, upper + (tile_height - label.height) // 2)
        for number, (tile, head) in enumerate(zip(row, row_heads, strict=True)):
            middle = left + number * column + (column - _GAP) // 2
            sheet.write(head, middle - head.width // 2, upper - 2 - head.height)
            if tile is not None:
                pixels = resize(tile.pixels, tile_height, tile_width)
                sheet.paste(pixels, middle - tile_width // 2, upper)
    return sheet


def _shown_size(rows: Sequence[Sequence[Tile | None]]) -> tuple[int, int]:
    """Height and width of every tile: whole multiples of the largest, or all made smaller."""
    shapes = [tile.pixels.shape for row in rows for tile in row if tile is not None]
    height, width = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    return shown_size(len(shapes), height, width)


def shown_size(count: int, height: int, width: int) -> tuple[int, int]:
    """Height and width that `draw_tiles` shows each of `count` tiles at, of the largest's size."""
    factor: float = math.ceil(_LEAST_SIDE / max(height, width))
    if factor == 1:
        least_area = math.sqrt(_MAX_PIXELS / (count * height * width))
        factor = min(1, _GREATEST_SIDE / max(height, width), least_area)
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pixels at another size: sharp squares when enlarged, means of squares when made smaller."""
    if height >= pixels.shape[0] and width >= pixels.shape[1]:
        rows, columns = _sources(pixels.shape[0], height), _sources(pixels.shape[1], width)
        # five times as fast as one index of both
        larger: Pixels = pixels.take(columns, axis=1).take(rows, axis=0)
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


@cache
def _sources(before: int, after: int) -> NDArray[np.intp]:
    """Which of `before` pixels in a line each of `after` shows."""
    middles = (np.arange(after) + 0.5) * (before / after)
    sources: NDArray[np.intp] = np.floor(middles).astype(np.intp)
    return sources
