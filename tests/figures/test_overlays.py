import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from texts import assert_apart
from torch import Tensor

from cnn_lightning.figures import draw_overlays, to_array, to_png
from cnn_lightning.figures.overlays import Evidence, Explained, find_peak

LONG = "Old English sheepdog, bobtail ($5 to $10)"
WORD = "Donaudampfschifffahrtsgesellschaft"


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def explain(
    predicted: str = "cat", true: str | None = "cat", channels: int = 3, side: int = 32
) -> Explained:
    def evidence(name: str) -> Evidence:
        return Evidence(name, noise(side, side), noise(side, side) - 0.5)

    return Explained(
        (noise(channels, side, side) * 255).to(torch.uint8),
        "photos/a_long_name_without_any_spaces.jpg",
        [(predicted, 0.6), (true or "dog", 0.3), (WORD, 0.05)],
        evidence(predicted),
        None if true is None else evidence(true),
    )


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in texts_of(figure)]


def texts_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


@pytest.mark.parametrize(
    ("num_images", "true"), [(1, "cat"), (1, WORD), (1, None), (2, LONG), (4, WORD)], ids=str
)
def test_no_text_is_cut_or_lies_over_another(num_images: int, true: str | None) -> None:
    figure = draw_overlays([explain(LONG, true)] * num_images, cam_layer="backbone.layer3")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [
        text.get_window_extent(canvas.get_renderer())
        for text in texts_of(figure)
        if text.axes is None or text.axes.axison
    ]
    assert len(boxes) >= 9 * num_images
    assert_apart(figure, boxes)


def test_a_right_prediction_has_one_row_and_a_wrong_one_two() -> None:
    right = words_of(draw_overlays([explain("cat", "cat")]))
    assert "predicted, rightly: cat" in right
    assert right.count("occlusion\n-0.5 to +0.5") == 1
    wrong = words_of(draw_overlays([explain("cat", "dog")]))
    assert "predicted, wrongly: cat" in wrong
    assert "true class: dog" in wrong
    assert wrong.count("occlusion\n-0.5 to +0.5") == 2
    assert "30.0%, true" in wrong
    unknown = words_of(draw_overlays([explain("cat", None)]))
    assert "predicted: cat" in unknown
    assert not any("true" in words for words in unknown)


def test_names_are_whole() -> None:
    words = "".join(words_of(draw_overlays([explain(LONG, WORD)]))).replace("\n", " ")
    assert LONG in words
    assert WORD in words
    assert "photos/a_long_name_without_any_spaces.jpg" in words.replace(" ", "")


def shown(figure: Figure, place: int) -> Tensor:
    """The middle pixels of each cell of a 2×2 map that is drawn in some axes."""
    pixels = to_array(figure)
    box = figure.axes[place].get_window_extent()
    left, width = box.x0, box.width
    top, height = figure.bbox.height - box.y1, box.height
    return torch.stack(
        [
            pixels[:, round(top + height * row), round(left + width * column)]
            for row in (0.2, 0.8)
            for column in (0.2, 0.8)
        ]
    ).int()


def test_orange_speaks_for_blue_against_and_grey_shows_where_nothing_does() -> None:
    image = torch.full((3, 2, 2), 128, dtype=torch.uint8)
    # the peak's ring is drawn in the middle of its cell, so that the corners are free
    cam = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    falls = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    item = Explained(image, "a", [("cat", 1.0)], Evidence("cat", cam, falls), None)
    figure = draw_overlays([item])
    red, _, blue = shown(figure, 1).unbind(1)
    assert (red - blue)[1] > 100
    assert torch.equal((red - blue)[[0, 2, 3]], torch.zeros(3, dtype=torch.int32))
    red, _, blue = shown(figure, 2).unbind(1)
    assert (red - blue)[0] < -100
    assert (red - blue)[2] > 100
    assert torch.equal((red - blue)[[1, 3]], torch.zeros(2, dtype=torch.int32))


def test_ring_is_at_the_peak_also_of_a_map_that_is_larger_than_the_image() -> None:
    cam = torch.zeros(64, 64)
    cam[20, 50] = 1
    item = explain()._replace(predicted=Evidence("cat", cam, torch.zeros(64, 64)), true=None)
    figure = draw_overlays([item])
    assert [tuple(line.get_xydata()[0]) for line in figure.axes[1].lines] == [(24.75, 9.75)] * 2
    assert not figure.axes[2].lines  # a map that is flat has no peak
    assert "Grad-CAM\n0 to 1" in words_of(figure)


def test_peak_of_equal_values_is_in_their_middle() -> None:
    values = torch.zeros(6, 8)
    values[1:5, 3:5] = 2
    assert find_peak(values) == (2.5, 3.5)
    values[5, 7] = 3
    assert find_peak(values) == (5, 7)


@pytest.mark.parametrize("channels", [2, 4])
def test_of_other_channels_than_grey_or_three_the_mean_is_shown(channels: int) -> None:
    image = draw_overlays([explain(channels=channels)]).axes[0].images[0].get_array()
    mean = (noise(channels, 32, 32) * 255).to(torch.uint8).float().mean(0)
    assert torch.equal(torch.tensor(image), mean.round().to(torch.uint8))


def test_map_without_evidence_says_so() -> None:
    nothing = Evidence("cat", torch.zeros(8, 8), torch.zeros(8, 8))
    words = words_of(draw_overlays([explain()._replace(predicted=nothing, true=None)]))
    assert "Grad-CAM\n0 throughout" in words


def test_png_is_below_a_megabyte_even_of_noise() -> None:
    items = [explain("cat", "dog", side=224)] * 4
    assert len(to_png(draw_overlays(items))) < 1_000_000


@pytest.mark.parametrize("count", [0, 5])
def test_more_images_than_fit_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} images do not fit"):
        draw_overlays([explain()] * count)
