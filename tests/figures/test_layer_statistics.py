import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from texts import png_as_drawn

from cnn_lightning.figures import draw_layer_statistics, to_png
from cnn_lightning.figures.layer_statistics import LayerLine

LINES = [
    LayerLine("backbone.act1", 0.5, 0.2, 0.25, None),
    LayerLine("backbone.act2", -0.5, 1.0, None, 0.125),
]


def words_of(lines: list[LayerLine]) -> list[str]:
    figure = draw_layer_statistics(lines, "Outputs over $5 to $10 images")
    to_png(figure)
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def test_every_share_is_written_and_a_dash_where_there_is_none() -> None:
    words = words_of(LINES)
    assert [words.count(word) for word in ("25.0%", "12.5%", "–")] == [1, 1, 2]
    assert {"backbone.act1", "backbone.act2", "dead units", "saturated outputs"} <= set(words)
    assert "Outputs over $5 to $10 images" in words


def test_shares_that_no_layer_can_have_are_left_out() -> None:
    assert "saturated outputs" not in words_of(LINES[:1])
    assert "dead units" not in words_of(LINES[1:])


def test_dot_and_bar_are_mean_and_standard_deviation_of_the_layer_on_top() -> None:
    axes = draw_layer_statistics(LINES, "").axes[0]
    assert [tuple(point) for point in axes.lines[0].get_xydata()] == [(0.5, 0), (-0.5, 1)]
    (bars,) = axes.collections
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[0.3, 0.7], [-1.5, 0.5]]
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first layer is on top


@pytest.mark.parametrize("count", [1, 60])
def test_no_text_is_cut_or_lies_over_another(count: int) -> None:
    lines = [
        LayerLine(f"backbone.layer{i}.1.downsample.relu", i, 1, i / 60, 1) for i in range(count)
    ]
    figure = draw_layer_statistics(lines, "Outputs of the activation functions over 500 images")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # matplotlib also keeps labels of ticks beyond the limits, which it does not draw
    ticks = {label for axes in figure.axes for label in axes.get_xticklabels()}
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [t.get_window_extent(canvas.get_renderer()) for t in texts if t not in ticks]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:number])
    assert len(png_as_drawn(figure)) < 1_000_000


@pytest.mark.parametrize("count", [0, 61])
def test_more_layers_than_fit_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} layers do not fit"):
        draw_layer_statistics(LINES[:1] * count, "")
