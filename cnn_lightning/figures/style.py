"""What all figures share: sizes in pixels, colours, and images shown pixel by pixel."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

DPI = 100

# Okabe & Ito's palette, told apart by the colour-blind (https://jfly.uni-koeln.de/color/)
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#808080"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
# together with the colours, so that lines are told apart without them
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of `width` × `height` pixels, laid out so that no text is cut."""
    # a hundredth of a pixel more, since matplotlib cuts 1.13 * 100 to 112
    size = ((width + 0.01) / DPI, (height + 0.01) / DPI)
    return Figure(figsize=size, dpi=DPI, layout="constrained")


def as_visible(image: Tensor) -> Tensor:
    """An image C×H×W uint8 as it can be shown: of other than 1 or 3 channels their mean, in grey.

    Example:
        >>> as_visible(torch.tensor([0, 4, 8, 9], dtype=torch.uint8).reshape(4, 1, 1)).tolist()
        [[[5]]]
    """
    if len(image) in (1, 3):
        return image
    return image.float().mean(0, keepdim=True).round().to(torch.uint8)


def show_image(axes: Axes, image: Tensor) -> None:
    """Show an image without ticks, its pixels as sharp squares.

    Args:
        axes: Where to.
        image: C×H×W uint8, C 1 (grey) or 3 (colour); of others the mean is shown.
    """
    pixels = as_visible(image).cpu().permute(1, 2, 0).numpy()  # H×W×1 is drawn with the colour map
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
