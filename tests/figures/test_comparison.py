"""Runs are told apart by colour, line and marker, and all that is written can be read."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from texts import png_as_drawn

from cnn_lightning.figures import draw_comparison, to_png
from cnn_lightning.figures.style import COLOURS

NAMES = [
    "cifar10_lenet_relu",
    "$5_to_$10",
    "_x",
    "x/version_0",
    "a run" * 20,
    "cifar10_resnet18_without_regularisation",
]
LAYERS = [f"backbone.layer{n}.relu" for n in range(1, 11)]


def curves(num_runs: int, num_epochs: int = 12) -> list[list[tuple[float, float]]]:
    """Curves of different lengths."""
    return [
        [(epoch, 1 - math.exp(-epoch / (run + 3))) for epoch in range(1, num_epochs + 1 - run % 3)]
        for run in range(num_runs)
    ]


def draw(names: Sequence[str] = NAMES[:2], **layers: Any) -> Figure:
    return draw_comparison(names, curves(len(names)), curves(len(names)), **layers)


def shares(num_runs: int, layers: Sequence[str] = LAYERS) -> list[dict[str, float]]:
    return [{layer: (run + place) / 20 for place, layer in enumerate(layers)}
            for run in range(num_runs)]  # fmt: skip


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def bars(figure: Figure) -> list[Rectangle]:
    return [bar for bar in figure.axes[2].patches if isinstance(bar, Rectangle)]


@pytest.mark.parametrize("num_epochs", [1, 12, 300])
@pytest.mark.parametrize("num_runs", [1, 2, 6])
def test_all_runs_are_in_both_axes_in_a_style_of_their_own(num_runs: int, num_epochs: int) -> None:
    given = curves(num_runs, num_epochs + 2)
    figure = draw_comparison(NAMES[:num_runs], given, given)
    styles = []
    for axes in figure.axes:
        assert [line.get_xydata().tolist() for line in axes.lines] == [  # type: ignore[union-attr]
            [list(point) for point in curve] for curve in given
        ]
        styles.append([(l.get_color(), l.get_linestyle(), l.get_marker()) for l in axes.lines])  # noqa: E741
    assert styles[0] == styles[1]
    assert len(set(styles[0])) == num_runs
    for one, other in itertools.pairwise(styles[0]):
        assert all(a != b for a, b in zip(one, other, strict=True))
    handles = figure.subfigs[0].legends[0].legend_handles
    assert [h.get_color() for h in handles] == [s[0] for s in styles[0]]  # type: ignore[union-attr]


LAYOUTS: dict[str, dict[str, Any]] = {
    "curves alone": {},
    "dead": {"dead": shares(6)},
    "both kinds and norms": {
        "dead": [*shares(3), {}, {}, {}],
        "saturated": [{}, {}, {}, *shares(3)],
        "gradient_norm": [{layer: 10.0**-n for n, layer in enumerate(LAYERS)}] * 6,
    },
    "long names of layers": {
        "saturated": [{"backbone." * 9 + "act": 1.0}] * 6,
        "gradient_norm": [{"backbone." * 9 + "conv": 0.3}] * 6,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_overlaps_or_leaves_the_figure(layout: str) -> None:
    layers = LAYOUTS[layout]
    names = NAMES if layout == "dead" else ["W" * 255, *NAMES[1:]]
    figure = draw(names, **layers)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts: list[Text] = [text for text in figure.findobj(Text) if text.get_text().strip()]  # type: ignore[assignment]
    drawn = [text for text in texts if text.get_visible()]
    boxes = []
    for axes in figure.axes:
        # ticks outside the limits are not drawn, though they exist
        for axis, low, high in (
            (axes.xaxis, *sorted(axes.get_xlim())),
            (axes.yaxis, *sorted(axes.get_ylim())),
        ):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high and tick.label1 in drawn:
                    drawn.remove(tick.label1)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in drawn]
    assert len(boxes) > 15
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= figure.bbox.width, text
        assert box.y1 <= figure.bbox.height, text
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        assert not one.padded(-1).overlaps(other.padded(-1)), (first, second)
    assert len(png_as_drawn(figure)) < 1_000_000


def test_names_of_runs_are_whole_whatever_they_hold() -> None:
    names = ["W" * 255, *NAMES[1:]]
    shown = [
        text.get_text().replace("\n", "") for text in draw(names).subfigs[0].legends[0].get_texts()
    ]
    assert shown == names


def test_panels_without_values_are_left_out() -> None:
    curves_alone = ["validation accuracy", "training loss (mean over the epoch)"]
    assert titles(draw()) == curves_alone
    assert titles(draw(dead=[{}, {}], saturated=[{}, {}])) == curves_alone
    assert titles(draw(gradient_norm=[{"a": 1.0}, {}])) == [*curves_alone, "gradient norm"]
    assert titles(draw(dead=[{}, {"a": 0.0}]))[2:] == ["dead ReLU channels"]
    assert titles(draw(saturated=[{"a": 0.0}, {}]))[2:] == ["saturated Tanh outputs"]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (["stem mixed head", "stem mixed head"], "stem mixed head"),
        (["stem head", "mixed head aux"], "stem mixed head aux"),
        (["c a", "e d"], "c a e d"),
        (["", "c b"], "c b"),
        # by their letters: the network's order is lost
        (["act1 act10 act2", "act10 act9"], "act1 act2 act9 act10"),
    ],
)
def test_layers_are_in_the_networks_order_from_top_to_bottom(
    runs: list[str], expected: str
) -> None:
    figure = draw(dead=[dict.fromkeys(layers.split(), 0.5) for layers in runs])
    labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert labels == expected.split()
    bottom, top = figure.axes[2].get_ylim()
    assert bottom > top


def test_a_bar_per_run_and_layer_with_its_share() -> None:
    dead = [{"act1": 0.25, "act2": 0.0}, {"act1": 0.125}]
    figure = draw(dead=dead)
    drawn = {
        (to_hex(bar.get_facecolor()).upper(), round(bar.get_y() + bar.get_height() / 2)): bar
        for bar in bars(figure)
    }
    widths = {place: bar.get_width() for place, bar in drawn.items()}
    assert widths == {(COLOURS[0], 0): 0.25, (COLOURS[0], 1): 0.0, (COLOURS[1], 0): 0.125}
    assert sorted(text.get_text() for text in figure.axes[2].texts) == ["0%", "12.5%", "25%"]


def test_dead_and_saturated_in_one_panel_are_told_apart_without_colour() -> None:
    figure = draw(dead=[{"act": 0.5}, {}], saturated=[{}, {"act": 0.75}])
    assert titles(figure)[2:] == ["idle units: dead ReLU channels / saturated Tanh outputs"]
    assert {bar.get_width(): bool(bar.get_hatch()) for bar in bars(figure)} == {
        0.5: False,
        0.75: True,
    }
    legend = figure.axes[2].get_legend()
    assert legend is not None
    kinds = [bool(handle.get_hatch()) for handle in legend.legend_handles]  # type: ignore[union-attr]
    words = [text.get_text() for text in legend.get_texts()]
    assert dict(zip(words, kinds, strict=True)) == {
        "dead ReLU channels": False,
        "saturated Tanh outputs": True,
    }


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0%"), (1e-4, "<0.1%"), (0.0312, "3.1%"), (0.9, "90%"), (0.9999, ">99.9%"), (1, "100%")],
)
def test_only_none_and_all_are_written_as_such(share: float, shown: str) -> None:
    figure = draw(dead=[{"act": share}, {}])
    assert [text.get_text() for text in figure.axes[2].texts] == [shown]


def test_gradients_on_a_logarithmic_axis_and_what_it_cannot_show() -> None:
    norms = [{"conv1": 0.1, "conv2": 0.0, "conv3": 1e-4}, {"conv1": math.nan, "conv3": math.inf}]
    axes = draw(gradient_norm=norms).axes[2]
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_xydata().tolist() == [[0.1, 0], [1e-4, 2]]  # type: ignore[union-attr]
    assert "not drawn" in axes.get_xlabel()
    assert "not drawn" not in draw(gradient_norm=[{"a": 1.0}, {}]).axes[2].get_xlabel()
    to_png(draw(gradient_norm=[{"a": 0.0}, {}]))


def test_a_loss_that_falls_far_or_diverges_can_be_seen() -> None:
    flat = [[(1, 2.0), (2, 0.1)]] * 2
    assert draw_comparison(["a", "b"], flat, flat).axes[1].get_yscale() == "linear"
    far = [[(1, 2.0), (2, 0.001)], [(1, math.nan), (2, math.inf)]]
    figure = draw_comparison(["a", "b"], flat, far)
    assert figure.axes[1].get_yscale() == "log"
    to_png(figure)
    to_png(draw_comparison(["a", "b"], flat, [[], [(1.0, math.nan)]]))


@pytest.mark.parametrize("num_runs", [0, 7])
def test_too_few_or_many_runs_are_refused(num_runs: int) -> None:
    with pytest.raises(ValueError, match=f"{num_runs} runs; 1 to 6"):
        draw(["run"] * num_runs)


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        draw(dead=[{"act": 0.5}])
