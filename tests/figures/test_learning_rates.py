import numpy as np
import pytest
from matplotlib.colors import to_rgba
from texts import assert_readable

from cnn_lightning.figures import draw_range_test, to_png
from cnn_lightning.figures.style import VERMILION

RATES = np.logspace(-6, 1, 100).tolist()
LOSSES = [*np.linspace(2.3, 0.4, 90), *np.logspace(0, 4, 10)]


def test_suggested_rate_is_marked_on_a_logarithmic_axis() -> None:
    figure = draw_range_test(RATES, LOSSES, LOSSES, "small: loss", suggestion=40)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    marks = [line for line in axes.lines if to_rgba(line.get_color()) == to_rgba(VERMILION)]
    assert [line.get_xdata()[0] for line in marks] == [RATES[40], RATES[40]]
    assert marks[1].get_ydata()[0] == LOSSES[40]
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert f"suggested: {RATES[40]:.2g}" in legend
    assert axes.get_ylim()[1] < 6  # what diverged does not press the rest flat


def test_without_a_suggestion_nothing_is_marked() -> None:
    figure = draw_range_test(RATES, LOSSES, LOSSES, "small: loss", suggestion=None)
    assert not any(text.get_text().startswith("suggested") for text in figure.legends[0].texts)
    assert len(figure.axes[0].lines) == 2


@pytest.mark.parametrize("title", ["short", f"{'long_name_of_a_recipe' * 2}: loss by rate"])
def test_everything_can_be_read(title: str) -> None:
    figure = draw_range_test(RATES, LOSSES, LOSSES, title, suggestion=40)
    assert_readable(figure)
    assert len(to_png(figure)) < 200_000
