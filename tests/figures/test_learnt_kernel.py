import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from texts import assert_apart, png_as_drawn

from cnn_lightning.figures import draw_learning
from cnn_lightning.figures.numbers import MINUS


@pytest.mark.parametrize("shape", [(3, 3), (7, 7), (1, 1), (1, 7), (7, 2)], ids=str)
def test_nothing_overlaps_or_leaves_the_figure(shape: tuple[int, int]) -> None:
    known = torch.linspace(-1000, 1, shape[0] * shape[1]).reshape(shape)
    figure = draw_learning("a given kernel", known, known + 1e-5, torch.logspace(12, -12, 301))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    assert_apart(figure, boxes)
    assert len(png_as_drawn(figure)) < 1_000_000


def test_kernels_losses_and_their_difference_are_drawn() -> None:
    known = torch.tensor([[1.0, -2]])
    figure = draw_learning("mine", known, torch.tensor([[1.0004, -2.25]]), torch.tensor([4.0, 1.0]))
    first, second, curve = figure.axes
    assert [text.get_text() for text in first.texts] == ["1", f"{MINUS}2"]
    assert [text.get_text() for text in second.texts] == ["1", f"{MINUS}2.25"]
    assert first.get_images()[0].get_clim() == second.get_images()[0].get_clim() == (-2.25, 2.25)
    assert curve.lines[0].get_ydata().tolist() == [4, 1]
    assert "largest difference 1/4" in [text.get_text() for text in figure.texts]


def test_small_kernels_are_no_zeros_and_what_was_learnt_is_no_fraction() -> None:
    known = torch.tensor([[1 / 16, 1 / 3, 0, 0.25]])
    learnt = torch.tensor([[0.062498, 0.333312, -0.0000043, 0.249991]])
    for scale, written, rounded in (
        (1.0, ["1/16", "1/3", "0", "1/4"], ["0.0625", "0.333", "0", "0.25"]),
        (2**-20, ["5.96e-8", "3.18e-7", "0", "2.38e-7"], ["5.96e-8", "3.18e-7", "0", "2.38e-7"]),
        (48e3, ["3000", "16000", "0", "12000"], ["3000", "16000", "0", "12000"]),
    ):
        figure = draw_learning("mine", scale * known, scale * learnt, torch.tensor([4.0, 1.0]))
        first, second, _ = figure.axes
        for axes, expected in ((first, written), (second, rounded)):
            texts = [text.get_text().replace(MINUS, "-") for text in axes.texts]
            assert texts == expected
