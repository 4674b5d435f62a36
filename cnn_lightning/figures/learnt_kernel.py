"""A known kernel, the one that gradient descent found, and its loss on the way."""

import math

from matplotlib.figure import Figure
from torch import Tensor

from cnn_lightning.figures.numbers import draw_numbers, spell
from cnn_lightning.figures.page import Page
from cnn_lightning.figures.style import BLUE

# all lengths in pixels
_MARGIN = 30
_TOP = 88
_KERNEL = 280
_CURVE = (440, 250)


def draw_learning(name: str, known: Tensor, learnt: Tensor, losses: Tensor) -> Figure:
    """Draw two kernels in the same colours, and the loss by step on a logarithmic axis.

    Args:
        name: What the known kernel is called.
        known: Kernel, a matrix of at most 7×7.
        learnt: Kernel of the same shape.
        losses: One more than there were steps, above 0.

    Returns:
        A figure of 100 dots per inch.
    """
    cell = min(66, _KERNEL // max(known.shape))
    height = _TOP + max(cell * known.shape[0], _CURVE[1]) + 80
    step = max(cell * known.shape[1], 200) + _MARGIN
    page = Page(2 * step + _MARGIN + _CURVE[0] + 110, height)
    page.text(_MARGIN, 18, f"Learning {name} from input and output", fontsize=14, fontweight="bold")
    most = float(known.abs().max().maximum(learnt.abs().max()))
    texts = [[spell(number, digits=3) for number in row] for row in known.tolist()]
    kernels = (("known kernel", known, texts), ("learnt kernel", learnt, _spell_rounded(learnt)))
    for place, (heading, kernel, texts) in enumerate(kernels):
        left = _MARGIN + place * step
        page.text(left, _TOP - 24, heading)
        axes = page.axes(left, _TOP, cell * kernel.shape[1], cell * kernel.shape[0])
        draw_numbers(axes, kernel, texts, cell=cell, colours="RdBu_r", limits=(-most, most))
    difference = float((known - learnt).abs().max())
    page.text(
        left,
        _TOP + cell * known.shape[0] + 8,
        f"largest difference {spell(difference, digits=2)}",
        fontsize=9,
    )
    axes = page.axes(2 * step + _MARGIN + 80, _TOP, *_CURVE)
    axes.plot(range(len(losses)), losses.tolist(), color=BLUE)
    axes.set_yscale("log")
    axes.set_xlabel("step of gradient descent")
    axes.set_ylabel("mean squared error")
    axes.grid(color="#dddddd", linewidth=0.6)
    return page.figure


def _spell_rounded(kernel: Tensor) -> list[list[str]]:
    """Numbers to a thousandth of the largest one's power of ten: what is left of 0 is 0."""
    most = float(kernel.abs().max())
    decimals = 3 - math.floor(math.log10(most)) if most > 0 else 0
    return [
        [spell(round(number, decimals) + 0.0, digits=3, fractions=False) for number in row]
        for row in kernel.tolist()
    ]
