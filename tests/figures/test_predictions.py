import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from texts import assert_apart
from torch import Tensor

from cnn_lightning.figures import draw_predictions, to_array, to_png

LONG = ["Ankle boot", "Construction vehicle", "Old English sheepdog, bobtail", "$5 to $10 note"]


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def draw(images: Tensor, names: list[str] = LONG, *, known: bool = True) -> Figure:
    num_images = len(images)
    predicted = [names[i % len(names)] for i in range(num_images)]
    true = [names[(i * i) % len(names)] for i in range(num_images)]
    return draw_predictions(images, predicted, [0.5] * num_images, true if known else None)


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (224, 224), (20, 60)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 7, 36])
def test_nothing_overlaps_or_leaves_the_figure(
    num_images: int, channels: int, shape: tuple[int, int]
) -> None:
    figure = draw(noise(num_images, channels, *shape))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    assert len(boxes) == 2 * num_images
    assert_apart(figure, boxes)


@pytest.mark.parametrize("side", [28, 43, 64, 99, 128, 224])
@pytest.mark.parametrize("num_images", [1, 9, 36])
def test_a_png_is_below_a_megabyte_even_of_noise(num_images: int, side: int) -> None:
    assert len(to_png(draw(noise(num_images, 3, side, side)))) < 1_000_000


@pytest.mark.parametrize(
    ("num_images", "side", "enlargement"), [(1, 28, 7), (36, 28, 4), (36, 43, 3), (36, 64, 2)]
)
def test_small_images_are_enlarged_pixel_by_pixel(
    num_images: int, side: int, enlargement: int
) -> None:
    images = noise(num_images, 3, side, side)
    figure = draw(images)
    pixels = to_array(figure)
    box = figure.axes[-1].get_window_extent()
    left, top = round(box.x0) + 5, round(figure.bbox.height - box.y1) + 5  # within the frame
    shown = pixels[:, top : top + side * enlargement, left : left + side * enlargement]
    expected = images[-1].repeat_interleave(enlargement, 1).repeat_interleave(enlargement, 2)
    assert torch.equal(shown, expected)


def test_grey_images_are_shown_as_they_are_not_stretched() -> None:
    images = torch.full((1, 1, 28, 28), 100, dtype=torch.uint8)
    pixels = to_array(draw(images))
    assert (pixels[:, 50, 50] == 100).all()


def test_right_and_wrong_differ_in_words_line_and_colour() -> None:
    figure = draw_predictions(noise(2, 3, 32, 32), ["cat", "dog"], [0.97, 0.54], ["cat", "cat"])
    assert texts_of(figure) == ["cat 97%\nright", "dog 54%\nwrong: is cat"]
    right, wrong = (axes.patches[0] for axes in figure.axes)
    assert isinstance(right, Rectangle)
    assert right.get_linestyle() in ("-", "solid")
    assert wrong.get_linestyle() not in ("-", "solid")
    assert right.get_edgecolor() != wrong.get_edgecolor()


def test_without_the_truth_nothing_is_called_right_or_wrong() -> None:
    assert texts_of(draw(noise(1, 3, 32, 32), ["cat"], known=False)) == ["cat 50%"]


def test_class_names_are_whole_whatever_they_hold() -> None:
    names = [*LONG, "Donaudampfschifffahrtsgesellschaft", "black-and-white-ruffed lemur", "a_b^c"]
    figure = draw_predictions(noise(7, 1, 28, 28), names, [0.5] * 7, names[1:] + names[:1])
    for text, name, truth in zip(texts_of(figure), names, names[1:] + names[:1], strict=True):
        assert text.replace("\n", " ") == f"{name} 50% wrong: is {truth}"
    to_array(figure)  # and no formula is seen in $5 to $10


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (0.0, "0%"),
        (0.001, "<1%"),
        (0.006, "1%"),
        (0.5, "50%"),
        (0.994, "99%"),
        (0.996, ">99%"),
        (1.0, "100%"),
    ],
)
def test_only_certainty_is_called_certain(probability: float, shown: str) -> None:
    figure = draw_predictions(noise(1, 1, 8, 8), ["cat"], [probability])
    assert texts_of(figure) == [f"cat {shown}"]


def test_the_file_holds_the_pixels_and_drawing_repeats_bit_for_bit() -> None:
    figure = draw(noise(7, 3, 32, 32))
    read = torch.from_numpy(np.array(Image.open(io.BytesIO(to_png(figure))))).permute(2, 0, 1)
    assert torch.equal(read, to_array(figure))
    assert to_png(figure) == to_png(draw(noise(7, 3, 32, 32)))


def test_pyplot_and_its_settings_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    to_png(draw(noise(2, 3, 32, 32)))
    assert dict(matplotlib.rcParams) == before
    assert "pyplot" not in Figure.__module__
    from matplotlib import _pylab_helpers

    assert not _pylab_helpers.Gcf.figs


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (3, 8, 8), (1, 4, 8, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images must be N×1×H×W or N×3×H×W"):
        draw_predictions(noise(*shape), ["cat"], [0.5])


@pytest.mark.parametrize("num_images", [0, 37])
def test_more_images_than_fit_and_none_are_refused(num_images: int) -> None:
    with pytest.raises(ValueError, match=f"{num_images} images do not fit"):
        draw(noise(num_images, 1, 8, 8))


@pytest.mark.parametrize(
    ("predicted", "probabilities", "true"),
    [(["a"], [0.5, 0.5], None), (["a", "b"], [0.5], None), (["a", "b"], [0.5, 0.5], ["a"])],
)
def test_lists_of_other_lengths_are_refused(
    predicted: list[str], probabilities: list[float], true: list[str] | None
) -> None:
    with pytest.raises(ValueError, match="differ in number"):
        draw_predictions(noise(2, 1, 8, 8), predicted, probabilities, true)
