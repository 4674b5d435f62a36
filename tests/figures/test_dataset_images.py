import itertools

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cnn_lightning.figures import draw_named_images, draw_samples, to_array, to_png
from cnn_lightning.figures.dataset_images import MAX_COLUMNS, MAX_NAMED_IMAGES, MAX_ROWS

LONG = ["Ankle boot", "Old English sheepdog, bobtail of a long name", "$5 to $10 note", "a_b^c"]
LONG += ["Donaudampfschifffahrtsgesellschaft", "black-and-white-ruffed lemur"]


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def names(count: int) -> list[str]:
    return [f"{LONG[number % len(LONG)]} {number}" for number in range(count)]


def samples(count: int, per_class: int, *shape: int) -> Figure:
    return draw_samples([noise(per_class, *shape)] * count, names(count), "a title\nof two lines")


def images_in(figure: Figure) -> Tensor:
    """Which pixels of the page hold no white: the images with their edges, H×W bool."""
    page = torch.from_numpy(figure.images[0].get_array().copy())
    return (page != 255).any(2)


def assert_texts_lie_apart(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = images_in(figure)
    height, width = drawn.shape
    assert (figure.bbox.width, figure.bbox.height) == pytest.approx((width, height), abs=0.1)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        top, bottom = round(height - box.y1), round(height - box.y0)
        assert not drawn[top:bottom, round(box.x0) : round(box.x1)].any()
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224), (3, 20, 60)], ids=str)
@pytest.mark.parametrize("count", [1, 2, MAX_ROWS])
def test_sample_rows_and_names_lie_apart(count: int, shape: tuple[int, int, int]) -> None:
    assert_texts_lie_apart(samples(count, 5, *shape))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224), (3, 20, 60)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 30])
def test_named_images_and_names_lie_apart(count: int, shape: tuple[int, int, int]) -> None:
    assert_texts_lie_apart(draw_named_images(noise(count, *shape), names(count), "a title"))


def test_texts_that_do_not_lie_apart_are_noticed() -> None:
    figure = samples(2, 2, 1, 8, 8)
    assert_texts_lie_apart(figure)
    figure.texts[1].set_position(figure.texts[2].get_position())
    with pytest.raises(AssertionError):
        assert_texts_lie_apart(figure)


@pytest.mark.parametrize("side", [32, 224])
def test_a_png_is_below_a_megabyte_even_of_noise(side: int) -> None:
    assert len(to_png(samples(MAX_ROWS, MAX_COLUMNS, 3, side, side))) < 1_000_000
    grid = draw_named_images(noise(MAX_NAMED_IMAGES, 3, side, side), names(50), "a title")
    assert len(to_png(grid)) < 1_000_000


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_enlarged_pixel_by_pixel(channels: int) -> None:
    images = noise(2, channels, 20, 30)
    figure = draw_named_images(images, ["one", "two"], "a title", side=96)
    drawn = images_in(figure).nonzero()
    top, left = (drawn.amin(0) + 1).tolist()  # within the edge
    shown = to_array(figure)[:, top : top + 3 * 20, left : left + 3 * 30]
    expected = images[0].repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.equal(shown, expected.expand(3, -1, -1))


def test_classes_may_have_different_numbers_of_images() -> None:
    rows = [noise(3, 1, 8, 8), noise(0, 1, 8, 8), noise(1, 1, 8, 8)]
    figure = draw_samples(rows, ["three", "none", "one"], "a title")
    # 4 images of 64 pixels with an edge around each
    assert images_in(figure).sum() == pytest.approx(4 * 66 * 66, rel=0.02)
    assert [text.get_text() for text in figure.texts] == ["a title", "three", "none", "one"]


def test_names_are_whole_whatever_they_hold() -> None:
    for figure in (samples(6, 2, 1, 8, 8), draw_named_images(noise(6, 1, 8, 8), names(6), "t")):
        shown = [text.get_text().replace("\n", " ") for text in figure.texts[1:]]
        assert shown == names(6)


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        samples(MAX_ROWS + 1, 1, 1, 8, 8)
    with pytest.raises(ValueError, match="do not fit"):
        samples(1, MAX_COLUMNS + 1, 1, 8, 8)
    with pytest.raises(ValueError, match="do not fit"):
        draw_samples([noise(0, 1, 8, 8)], ["none"], "a title")
    with pytest.raises(ValueError, match="do not fit"):
        draw_named_images(noise(2, 1, 8, 8), ["one"], "a title")
    with pytest.raises(ValueError, match="do not fit"):
        draw_named_images(noise(51, 1, 8, 8), names(51), "a title")
