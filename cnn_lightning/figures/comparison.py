"""Runs side by side: their curves, and how busy their layers are."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cnn_lightning.figures.style import COLOURS, DPI, GREY, LINE_STYLES, MARKERS, new_figure

MAX_RUNS = len(COLOURS)

Curve = Sequence[tuple[float, float]]
Layers = Mapping[str, float]

# all lengths in pixels
_WIDTH = 1100
_CURVES_HEIGHT = 380
_LEGEND_LINE = 22
_HANDLE = 90
_LAYER_WIDTH = 150
_BAR = 15
_GAP = 12
_PANEL_BORDER = 110
_HATCH = "/////"
# on a logarithmic axis shorter than this, 2 and 5 are written too
_FEW_DECADES = 300
# a loss that falls by more is drawn on a logarithmic axis
_LARGE_FALL = 50


def draw_comparison(
    names: Sequence[str],
    val_accuracy: Sequence[Curve],
    train_loss: Sequence[Curve],
    *,
    dead: Sequence[Layers] = (),
    saturated: Sequence[Layers] = (),
    gradient_norm: Sequence[Layers] = (),
) -> Figure:
    """Draw the curves of runs in shared axes and, where known, the state of their layers.

    A run has one colour, line style and marker throughout. Layers are from top to bottom, in the
    order in which they are given; a panel without any value is left out.

    Args:
        names: One per run, 1 to 6.
        val_accuracy: Per run the epochs, from 1, and the accuracies, 0..1.
        train_loss: Per run the epochs and the losses.
        dead: Per run the share (0..1) of ReLU channels that are never active, by layer.
        saturated: Per run the share (0..1) of saturated Tanh outputs, by layer.
        gradient_norm: Per run the norm of the gradient, by layer; 0, infinity and NaN have no
            place on the logarithmic axis, which then says so.

    Raises:
        ValueError: There are too few or too many runs, or the lengths differ.
    """
    dead, saturated, gradient_norm = (
        given or [{} for _ in names] for given in (dead, saturated, gradient_norm)
    )
    lengths = {len(names), *map(len, (val_accuracy, train_loss, dead, saturated, gradient_norm))}
    if len(lengths) > 1:
        raise ValueError(f"names and values differ in number: {sorted(lengths)}")
    if not 1 <= len(names) <= MAX_RUNS:
        raise ValueError(f"{len(names)} runs; 1 to {MAX_RUNS} can be told apart")
    idle_layers, norm_layers = _merge_layers([*dead, *saturated]), _merge_layers(gradient_norm)
    figure, panels = _arrange(names, idle_layers, norm_layers)
    _draw_curves(panels[0], val_accuracy)
    panels[0].set_title("validation accuracy")
    _draw_curves(panels[1], train_loss)
    panels[1].set_title("training loss (mean over the epoch)")
    _use_log_scale_if_needed(panels[1], train_loss)
    if idle_layers:
        _draw_idle(panels[2], idle_layers, dead, saturated)
    if norm_layers:
        _draw_norms(panels[-1], norm_layers, gradient_norm)
    return figure


def _arrange(
    names: Sequence[str], idle_layers: Sequence[str], norm_layers: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    """A figure as large as layers and names need, with its legend and empty panels."""
    lower = [layers for layers in (idle_layers, norm_layers) if layers]
    longest = max((_text_width(layer) for layers in lower for layer in layers), default=0)
    width = _WIDTH + len(lower) * max(0, longest - _LAYER_WIDTH)
    num_layers = max(map(len, lower), default=0)
    layers_height = num_layers * (len(names) * _BAR + _GAP) + _PANEL_BORDER if lower else 0
    broken = [_break(name, width - 2 * _HANDLE) for name in names]
    entry = max(_text_width(line) for name in broken for line in name.split("\n")) + _HANDLE
    num_columns = max(1, min(int(width / entry), len(names)))
    num_lines = math.ceil(len(names) / num_columns) * max(name.count("\n") + 1 for name in broken)
    curves_height = _CURVES_HEIGHT + num_lines * _LEGEND_LINE
    figure = new_figure(width, curves_height + layers_height)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    heights = [curves_height, layers_height] if lower else [curves_height]
    # each row on its own, so that long names of layers do not narrow the curves
    rows = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _add_legend(rows[0], broken, num_columns)
    panels = list(rows[0].subplots(1, 2))
    if lower:
        panels += list(rows[1].subplots(1, len(lower), squeeze=False)[0])
    return figure, panels


def _add_legend(figure: SubFigure, names: Sequence[str], num_columns: int) -> None:
    legend = figure.legend(
        [Line2D([], [], **_line_of(run)) for run in range(len(names))],
        [" "] * len(names),
        loc="outside upper center",
        ncol=num_columns,
        handlelength=4,
        frameon=False,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)  # a $ in a name is a $
        text.set_text(name)  # not above, where a leading _ would hide it


def _text_width(text: str) -> float:
    renderer = FigureCanvasAgg(Figure(dpi=DPI)).get_renderer()  # type: ignore[no-untyped-call]
    font = FontProperties(size=10)
    return float(renderer.get_text_width_height_descent(text, font, ismath=False)[0])


def _break(name: str, width: float) -> str:
    """A name in as many lines as fit into `width` pixels, whole."""
    for num_lines in range(1, len(name)):
        length = math.ceil(len(name) / num_lines)
        lines = [name[start : start + length] for start in range(0, len(name), length)]
        if max(map(_text_width, lines)) <= width:
            return "\n".join(lines)
    return "\n".join(name)


def _line_of(run: int) -> dict[str, Any]:
    return {
        "color": COLOURS[run],
        "linestyle": LINE_STYLES[run % len(LINE_STYLES)],
        "marker": MARKERS[run],
        "markersize": 5.5,
        "linewidth": 1.7,
    }


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    for run, curve in enumerate(curves):
        epochs = [epoch for epoch, _ in curve]
        values = [value for _, value in curve]
        every = max(1, math.ceil(len(curve) / 20))
        start = run * every // len(curves)  # markers of equal curves side by side
        axes.plot(epochs, values, **_line_of(run), markevery=(start, every))
    last = max((epoch for curve in curves for epoch, _ in curve), default=1)
    if last <= 1:
        axes.set_xlim(0, 2)  # a single point, without fractions of an epoch around it
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)


def _use_log_scale_if_needed(axes: Axes, curves: Sequence[Curve]) -> None:
    values = [value for curve in curves for _, value in curve if math.isfinite(value)]
    if values and min(values) > 0 and max(values) / min(values) > _LARGE_FALL:
        axes.set_yscale("log")


def _draw_idle(
    axes: Axes, layers: Sequence[str], dead: Sequence[Layers], saturated: Sequence[Layers]
) -> None:
    """A group of bars per layer, one per run, each with its share written at its end."""
    is_mixed = any(dead) and any(saturated)
    num_runs = len(dead)
    height = _BAR / (num_runs * _BAR + _GAP)
    largest = max(share for shares in (*dead, *saturated) for share in shares.values())
    for run in range(num_runs):
        for place, layer in enumerate(layers):
            y = place + (run - (num_runs - 1) / 2) * height
            for shares, is_hatched in ((dead[run], False), (saturated[run], is_mixed)):
                if layer in shares:
                    axes.barh(y, shares[layer], height, **_bar_of(COLOURS[run], is_hatched))
                    axes.annotate(
                        _percent(shares[layer]),
                        (shares[layer], y),
                        (3, 0),
                        textcoords="offset points",
                        va="center_baseline",
                        fontsize=8,
                    )
    axes.set_xlim(0, max(largest, 0.05) * 1.15)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    _name_layers(axes, layers)
    if is_mixed:
        axes.set_title("idle units: dead ReLU channels / saturated Tanh outputs", pad=28)
        axes.set_xlabel("share of channels / of outputs with |y| > 0.97, last epoch")
        axes.legend(
            [Patch(**_bar_of(GREY, is_hatched)) for is_hatched in (False, True)],
            ["dead ReLU channels", "saturated Tanh outputs"],
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncol=2,
            frameon=False,
        )
    elif any(dead):
        axes.set_title("dead ReLU channels")
        axes.set_xlabel("share never active on the validation images, last epoch")
    else:
        axes.set_title("saturated Tanh outputs")
        axes.set_xlabel("share of outputs with |y| > 0.97, last epoch")


def _bar_of(colour: str, is_hatched: bool) -> dict[str, Any]:  # noqa: FBT001
    if is_hatched:
        return {"facecolor": "white", "edgecolor": colour, "hatch": _HATCH}
    return {"facecolor": colour, "edgecolor": colour}


def _draw_norms(axes: Axes, layers: Sequence[str], norms: Sequence[Layers]) -> None:
    """A line per run from layer to layer; the axis of the norms is logarithmic."""
    for run, of_run in enumerate(norms):
        known = [(of_run[layer], place) for place, layer in enumerate(layers) if layer in of_run]
        drawn = [(norm, place) for norm, place in known if 0 < norm < math.inf]
        axes.plot([norm for norm, _ in drawn], [place for _, place in drawn], **_line_of(run))
    axes.set_xscale("log")
    least, most = axes.get_xlim()
    # by itself it would write 2×10⁰, 3×10⁰, 4×10⁰ and so on where there is less than a decade
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if most < _FEW_DECADES * least else (1,))
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("gradient norm")
    is_whole = all(0 < norm < math.inf for of_run in norms for norm in of_run.values())
    note = "" if is_whole else " (0 and infinity are not drawn)"
    axes.set_xlabel(f"norm of the layer's gradient, last epoch{note}")
    axes.grid(alpha=0.3)
    _name_layers(axes, layers)


def _name_layers(axes: Axes, layers: Sequence[str]) -> None:
    axes.set_yticks(range(len(layers)), layers, parse_math=False)
    axes.set_ylim(len(layers) - 0.5, -0.5)


def _merge_layers(runs: Sequence[Layers]) -> list[str]:
    """All names in the order of each run, those that only some have beside their neighbours.

    A run that has them by their letters, as older tables do, has lost the network's order: there
    numbers count by their value (`act2` before `act10`).
    """
    merged: list[str] = []
    for run in runs:
        layers = list(run)
        if layers == sorted(layers):
            layers.sort(key=_by_numbers)
        place = next((merged.index(layer) for layer in layers if layer in merged), len(merged))
        for layer in layers:
            if layer in merged:
                place = merged.index(layer)
            else:
                merged.insert(place, layer)
            place += 1
    return merged


def _by_numbers(layer: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", layer)]


def _percent(share: float) -> str:
    """One decimal, with 0% and 100% kept for what is so exactly."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}".replace(".0%", "%")
