"""Numbers as they are printed in a book, and matrices of them drawn cell by cell."""

import math
from fractions import Fraction
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from torch import Tensor

from cnn_lightning.figures.style import DPI

MINUS = "\N{MINUS SIGN}"
# the widest letter of the digits, as a share of the font's size
_LETTER = 0.66
_LARGEST_DENOMINATOR = 32


def spell(value: float, *, digits: int = 6, fractions: bool = True) -> str:
    """A number in few letters: whole, as a simple fraction, or rounded.

    Args:
        value: Any number; what is within a millionth of a fraction is one.
        digits: Significant digits of what is rounded.
        fractions: Whether there are any; what is rounded already is none.

    Example:
        >>> [spell(value, digits=3) for value in (255.0, 0.0625, 28.3333, 2e-7, math.inf)]
        ['255', '1/16', '28.3', '2e−7', '∞']
    """  # noqa: RUF002  # what is printed has a real minus
    sign, size = MINUS if value < 0 else "", abs(value)
    if math.isinf(size):
        return f"{sign}∞"
    if size == round(size) and size < 1e6:
        return f"{sign}{size:.0f}" if size else "0"
    fraction = _as_fraction(size) if fractions else None
    if fraction:
        return f"{sign}{fraction}"
    if 1e-3 <= size < 1e6:
        decimals = max(0, digits - math.floor(math.log10(size)) - 1)
        text = f"{size:.{decimals}f}"
        return sign + (text.rstrip("0").rstrip(".") if decimals else text)
    mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
    return f"{sign}{float(mantissa):g}e{int(exponent)}".replace("e-", f"e{MINUS}")


def is_rounded(value: float, *, digits: int = 6) -> bool:
    """Whether `spell` writes something else than the number."""
    if math.isinf(value) or _as_fraction(abs(value)):
        return False
    return not math.isclose(float(spell(value, digits=digits).replace(MINUS, "-")), value)


def _as_fraction(size: float) -> Fraction | None:
    fraction = Fraction(size).limit_denominator(_LARGEST_DENOMINATOR)
    is_close = abs(float(fraction) - size) < 1e-6 * size
    return fraction if 0 < size < 1 and is_close else None


def draw_numbers(
    axes: Axes,
    numbers: Tensor,
    texts: list[list[str]],
    *,
    cell: float,
    colours: Colormap | str,
    limits: tuple[float, float],
) -> None:
    """Draw a matrix as a grid of coloured cells, each with its number.

    Args:
        axes: Where to; as wide and high as the cells together.
        numbers: R×L float, what the colours stand for; -inf is white.
        texts: R rows of L texts.
        cell: Side of a cell in pixels; the letters are made to fit.
        colours: A colour map.
        limits: What its ends stand for.
    """
    shown: Any = numbers.double().masked_fill(numbers.isinf(), torch.nan).numpy()
    picture = axes.imshow(
        shown, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect="auto"
    )
    longest = max(len(text) for row in texts for text in row)
    points = min(11.0, 0.9 * cell / (longest * _LETTER) * 72 / DPI)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            red, green, blue, _ = picture.to_rgba(shown[row, column])
            # the luminance of ITU-R 601
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=points,
                color="white" if dark and math.isfinite(shown[row, column]) else "black",
            )
    axes.set_xticks([place - 0.5 for place in range(1, numbers.shape[1])], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, numbers.shape[0])], minor=True)
    axes.grid(which="minor", color="#909090", linewidth=0.8)
    axes.tick_params(which="both", length=0, labelleft=False, labelbottom=False)
    axes.set_xticks([])
    axes.set_yticks([])
