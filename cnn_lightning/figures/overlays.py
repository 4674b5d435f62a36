"""Images with maps of the evidence for a class laid over them."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from cnn_lightning.figures.style import BLUE, GREY, VERMILION, new_figure, show_image

MAX_IMAGES = 4
NUM_RANKED = 3

# all lengths in pixels
_SIDE = 190
_BARS = 150
_LINE = 18
_LETTER = 7  # a wide one at the sizes used here
_NAME_LETTERS = 30
_LEGEND = 60
# of all tiles together: a PNG of less than 1 MB, even if they are noise
_MAX_PIXELS = 250_000
_OPACITY = 0.85  # of the strongest evidence: the image still shows


class Evidence(NamedTuple):
    """The evidence for one class in one image.

    Attributes:
        name: The class.
        grad_cam: H×W float at least 0.
        occlusion: H×W float, the fall of the class's log-odds where the image is covered.
    """

    name: str
    grad_cam: Tensor
    occlusion: Tensor


class Explained(NamedTuple):
    """One image, what was made of it, and why.

    Attributes:
        image: C×H×W uint8, C 1 (grey) or 3 (colour); of others the mean is shown.
        name: What to call it.
        ranked: The most probable classes and their probabilities 0..1, the most probable first.
        predicted: Evidence for the predicted class.
        true: Evidence for the true class, of the same name where the prediction is right; `None`
            if it is not known.
    """

    image: Tensor
    name: str
    ranked: Sequence[tuple[str, float]]
    predicted: Evidence
    true: Evidence | None


class _Row(NamedTuple):
    """An image's evidence for one class; the first of an image also has the image and the bars."""

    explained: Explained
    evidence: Evidence
    title: str
    is_first: bool


def draw_overlays(explained: Sequence[Explained], *, cam_layer: str | None = None) -> Figure:
    """Draw images with Grad-CAM and occlusion laid over them, and the probable classes beside.

    A right prediction has one row, a wrong one a second row for the true class. Orange speaks for
    the class and blue against it, the stronger the further from 0, on each map's own scale, which
    stands below it; a ring marks the peak.

    Args:
        explained: 1 to 4 images.
        cam_layer: The layer that Grad-CAM explains, named below all.

    Returns:
        A figure of 100 dots per inch.

    Raises:
        ValueError: There are none or more than fit.
    """
    if not 1 <= len(explained) <= MAX_IMAGES:
        raise ValueError(f"{len(explained)} images do not fit a figure of 1 to {MAX_IMAGES}")
    rows = [row for item in explained for row in _split(item)]
    side = min(_SIDE, int((_MAX_PIXELS / 3 / len(rows)) ** 0.5))
    heads = [_write_heads(row, side) for row in rows]
    labels = [_rank_labels(item) for item in explained]
    letters = max(len(line) for names in labels for name in names for line in name.split("\n"))
    heights = [side + _LINE * (4 + max(head.count("\n") for head in pair)) for pair in heads]
    figure = new_figure(
        3 * (side + 12) + _BARS + _LETTER * letters + 24, sum(heights) + 12 * len(rows) + _LEGEND
    )
    grid = figure.add_gridspec(
        len(rows), 4, height_ratios=heights, width_ratios=[side, side, side, _BARS]
    )
    for place, (row, (name, title)) in enumerate(zip(rows, heads, strict=True)):
        cells = [figure.add_subplot(grid[place, column]) for column in range(4)]
        _draw_image(cells[0], cells[3], row, name, side)
        _draw_maps(cells[1], cells[2], row, title)
    _add_legend(figure, cam_layer)
    return figure


def _split(item: Explained) -> list[_Row]:
    predicted, true = item.predicted, item.true
    if true is None:
        return [_Row(item, predicted, f"predicted: {predicted.name}", is_first=True)]
    if true.name == predicted.name:
        return [_Row(item, predicted, f"predicted, rightly: {predicted.name}", is_first=True)]
    return [
        _Row(item, predicted, f"predicted, wrongly: {predicted.name}", is_first=True),
        _Row(item, true, f"true class: {true.name}", is_first=False),
    ]


def _write_heads(row: _Row, side: int) -> tuple[str, str]:
    """What stands above the image and above the two maps, in lines of their width."""
    name = row.explained.name if row.is_first else ""
    return _wrap(name, side // _LETTER), _wrap(row.title, 2 * side // _LETTER)


def _wrap(phrase: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(phrase, letters))


def _draw_image(axes: Axes, bar_axes: Axes, row: _Row, name: str, side: int) -> None:
    if not row.is_first:
        axes.set_axis_off()
        bar_axes.set_axis_off()
        return
    show_image(axes, row.explained.image)
    axes.set_title(name, fontsize=9, parse_math=False, loc="left")
    _draw_bars(bar_axes, row.explained, side)


def _draw_maps(cam_axes: Axes, occlusion_axes: Axes, row: _Row, title: str) -> None:
    cam, falls = row.evidence.grad_cam, row.evidence.occlusion
    _draw_overlay(cam_axes, row.explained.image, cam)
    cam_axes.set_title(title, fontsize=9, parse_math=False, loc="left")
    largest = float(cam.max())
    scale = f"0 to {largest:.3g}" if largest > 0 else "0 throughout"
    cam_axes.set_xlabel(f"Grad-CAM\n{scale}", fontsize=8)
    _draw_overlay(occlusion_axes, row.explained.image, falls)
    occlusion_axes.set_xlabel(
        f"occlusion\n{float(falls.min()):+.3g} to {float(falls.max()):+.3g}", fontsize=8
    )


def _draw_overlay(axes: Axes, image: Tensor, strength: Tensor) -> None:
    """The image in grey with a map over it, and a ring around the map's peak."""
    height, width = image.shape[1:]
    grey = image.float().mean(0, keepdim=True).round().to(torch.uint8)
    show_image(axes, grey)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)  # the map may be larger than the image
    axes.imshow(_colour(strength), extent=extent, interpolation="nearest")
    if float(strength.max()) > 0:
        row, column = find_peak(strength)
        place = (
            (column + 0.5) * width / strength.shape[1] - 0.5,
            (row + 0.5) * height / strength.shape[0] - 0.5,
        )
        for colour, thickness in (("black", 3.5), ("white", 1.5)):
            axes.plot(*place, "o", markersize=9, mfc="none", mec=colour, mew=thickness)


def find_peak(values: Tensor) -> tuple[float, float]:
    """Row and column of the greatest of H×W values, or the middle of all that are the greatest.

    Occlusion, for one, gives the same value to a whole square of pixels.
    """
    rows, columns = (values == values.max()).nonzero().double().mean(0).tolist()
    return rows, columns


def _colour(strength: Tensor) -> Any:
    """H×W to H×W×4 float: orange above 0, blue below, the opacity grows with the distance."""
    strength = strength.detach().float().cpu()
    largest = strength.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    orange, blue = (torch.tensor(to_rgb(colour)) for colour in (VERMILION, BLUE))
    colours = torch.where((strength >= 0)[..., None], orange, blue)
    opacity = _OPACITY * strength.abs() / largest
    return torch.cat([colours, opacity[..., None]], 2).numpy()


def _rank_labels(item: Explained) -> list[str]:
    return [
        "\n".join(textwrap.wrap(name, _NAME_LETTERS, break_long_words=False))
        for name, _ in item.ranked[:NUM_RANKED]
    ]


def _draw_bars(axes: Axes, item: Explained, side: int) -> None:
    ranked = item.ranked[:NUM_RANKED]
    truth = None if item.true is None else item.true.name
    places = range(len(ranked))
    axes.set_box_aspect(side / _BARS)  # as high as the images
    bars = axes.barh(places, [share for _, share in ranked], color=GREY, height=0.5)
    words = [f"{share:.1%}{', true' if name == truth else ''}" for name, share in ranked]
    axes.bar_label(bars, words, padding=3, fontsize=8)
    axes.set_yticks(places, _rank_labels(item), fontsize=8, parse_math=False)
    axes.set_ylim(NUM_RANKED - 0.4, -0.6)
    axes.set_xlim(0, 2.3)  # with place for the numbers
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title("probability", fontsize=9, loc="left")


def _add_legend(figure: Figure, cam_layer: str | None) -> None:
    ring = Line2D([], [], linestyle="", marker="o", mfc="none", mec="black", markersize=8)
    legend = figure.legend(
        [Patch(color=VERMILION), Patch(color=BLUE), ring],
        ["speaks for the class", "speaks against it", "peak of the map"],
        loc="outside lower left",
        ncols=3,
        frameon=False,
        fontsize=8,
        title="Occlusion: fall of the class's log-odds, log p / (1 - p), where the image is covered"
        + ("" if cam_layer is None else f"\nGrad-CAM: of {cam_layer}"),
        title_fontsize=8,
        alignment="left",
    )
    legend.get_title().set_parse_math(False)
