"""How the layers of a network fare, as one line each."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_lightning.figures.style import BLUE, GREY, VERMILION, new_figure

MAX_LAYERS = 60

# all lengths in pixels
_ROW, _FRAME, _COLUMN, _LETTER, _LINE = 18, 80, 240, 7, 17


class LayerLine(NamedTuple):
    """What is said of one layer.

    Attributes:
        name: The layer.
        mean: Mean of all its outputs.
        std: Their standard deviation.
        dead: Share 0..1 of units that were never active; `None` if they cannot die.
        saturated: Share 0..1 of outputs close to the function's limits; `None` for others.
    """

    name: str
    mean: float
    std: float
    dead: float | None
    saturated: float | None


def draw_layer_statistics(layers: Sequence[LayerLine], title: str) -> Figure:
    """Draw mean ± standard deviation of layers' outputs, and shares of dead and saturated units.

    One line per layer, the first on top. A share that a layer cannot have is shown as a dash, one
    that none can have is left out.

    Args:
        layers: 1 to 60 layers in the network's order.
        title: Stands above all.

    Returns:
        A figure of 100 dots per inch.

    Raises:
        ValueError: There are none or more than fit.
    """
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers do not fit a figure of 1 to {MAX_LAYERS}")
    letters = max(len(layer.name) for layer in layers)
    dead = [layer.dead for layer in layers]
    saturated = [layer.saturated for layer in layers]
    shares = [
        (name, values, colour)
        for name, values, colour in (
            ("dead units", dead, VERMILION),
            ("saturated outputs", saturated, BLUE),
        )
        if any(value is not None for value in values)
    ]
    figure = new_figure(
        (1 + len(shares)) * _COLUMN + _LETTER * letters,
        _FRAME + _ROW * len(layers) + _LINE * (title.count("\n") + 1),
    )
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    spread, *others = figure.subplots(1, 1 + len(shares), sharey=True, squeeze=False)[0]
    _draw_spread(spread, layers)
    for axes, (name, values, colour) in zip(others, shares, strict=True):
        _draw_shares(axes, values, colour)
        axes.set_title(name, fontsize=9)
    for axes in (spread, *others):
        axes.tick_params(labelsize=8, length=2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92", linewidth=0.5)
        axes.set_axisbelow(True)
    return figure


def _draw_spread(axes: Axes, layers: Sequence[LayerLine]) -> None:
    places = range(len(layers))
    axes.errorbar(
        [layer.mean for layer in layers], places, xerr=[layer.std for layer in layers],
        fmt="o", color=BLUE, ecolor=GREY, markersize=4, capsize=2, linewidth=1,
    )  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_title("mean ± standard deviation", fontsize=9)
    axes.set_yticks(places, [layer.name for layer in layers], fontsize=8, parse_math=False)
    axes.set_ylim(len(layers) - 0.5, -0.5)


def _draw_shares(axes: Axes, shares: Sequence[float | None], colour: str) -> None:
    """Bars of shares in percent, each with its number; a dash where there is none."""
    bars = axes.barh(
        range(len(shares)), [100 * (share or 0) for share in shares], color=colour, height=0.6
    )
    words = ["–" if share is None else f"{share:.1%}" for share in shares]
    axes.bar_label(bars, words, padding=3, fontsize=8)
    axes.set_xlim(0, 130)  # with place for the numbers
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100%"])
