import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from texts import assert_sheet_readable
from torch import Tensor

from cnn_lightning.figures import Sheet, draw_predictions, to_array, to_png
from cnn_lightning.figures.style import BLUE, GREY, VERMILION

LONG = ["Ankle boot", "Construction vehicle", "Old English sheepdog, bobtail", "$5 to $10 note"]


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def draw(images: Tensor, names: list[str] = LONG, *, known: bool = True) -> Sheet:
    num_images = len(images)
    predicted = [names[i % len(names)] for i in range(num_images)]
    true = [names[(i * i) % len(names)] for i in range(num_images)]
    return draw_predictions(images, predicted, [0.5] * num_images, true if known else None)


def texts_of(sheet: Sheet) -> list[str]:
    return [text for text, _ in sheet.texts]


def edge_of(sheet: Sheet, number: int) -> Tensor:
    """The colours 3×L of the upper edge of a frame."""
    left, top, right, _ = sheet.frames[number]
    return to_array(sheet)[:, top, left:right]


def share_of(edge: Tensor, colour: str) -> float:
    wanted = (torch.tensor(to_rgb(colour)) * 255).round().to(torch.uint8)
    return float((edge == wanted[:, None]).all(0).float().mean())


@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (224, 224), (20, 60)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 7, 36])
def test_nothing_overlaps_or_leaves_the_sheet(
    num_images: int, channels: int, shape: tuple[int, int]
) -> None:
    sheet = draw(noise(num_images, channels, *shape))
    assert_sheet_readable(sheet)
    assert len(sheet.texts) == len(sheet.frames) == len(sheet.pictures) == num_images
    for frame, picture in zip(sheet.frames, sheet.pictures, strict=True):
        # white between the two, on all sides
        assert frame.left + 3 < picture.left < picture.right < frame.right - 3
        assert frame.top + 3 < picture.top < picture.bottom < frame.bottom - 3


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
    sheet = draw(images)
    pixels = to_array(sheet)
    left, top, right, bottom = sheet.pictures[-1]
    shown = pixels[:, top:bottom, left:right]
    expected = images[-1].repeat_interleave(enlargement, 1).repeat_interleave(enlargement, 2)
    assert torch.equal(shown, expected)


def test_grey_images_are_shown_as_they_are_not_stretched() -> None:
    images = torch.full((1, 1, 28, 28), 100, dtype=torch.uint8)
    pixels = to_array(draw(images))
    assert (pixels[:, 50, 50] == 100).all()


def test_right_and_wrong_differ_in_words_line_and_colour() -> None:
    sheet = draw_predictions(noise(2, 3, 32, 32), ["cat", "dog"], [0.97, 0.54], ["cat", "cat"])
    assert texts_of(sheet) == ["cat: 97%\nright", "dog: 54%\nwrong: is cat"]
    right, wrong = edge_of(sheet, 0), edge_of(sheet, 1)
    assert share_of(right, BLUE) == 1
    assert 0.5 < share_of(wrong, VERMILION) < 0.7  # dashes
    assert share_of(wrong, VERMILION) + share_of(wrong, "white") == 1


def test_without_the_truth_nothing_is_called_right_or_wrong() -> None:
    sheet = draw(noise(1, 3, 32, 32), ["cat"], known=False)
    assert texts_of(sheet) == ["cat: 50%"]
    assert share_of(edge_of(sheet, 0), GREY) == 1


def test_class_names_are_whole_whatever_they_hold() -> None:
    names = [*LONG, "Donaudampfschifffahrtsgesellschaft", "black-and-white-ruffed lemur", "a_b^c"]
    sheet = draw_predictions(noise(7, 1, 28, 28), names, [0.5] * 7, names[1:] + names[:1])
    for text, name, truth in zip(texts_of(sheet), names, names[1:] + names[:1], strict=True):
        assert text.replace("\n", " ") == f"{name}: 50% wrong: is {truth}"
    assert_sheet_readable(sheet)


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
    sheet = draw_predictions(noise(1, 1, 8, 8), ["cat"], [probability])
    assert texts_of(sheet) == [f"cat: {shown}"]


def test_the_file_holds_the_pixels_and_drawing_repeats_bit_for_bit() -> None:
    sheet = draw(noise(7, 3, 32, 32))
    read = torch.from_numpy(np.array(Image.open(io.BytesIO(to_png(sheet))))).permute(2, 0, 1)
    assert torch.equal(read, to_array(sheet))
    assert to_png(sheet) == to_png(draw(noise(7, 3, 32, 32)))


def test_pyplot_and_its_settings_are_left_alone() -> None:
    before = dict(matplotlib.rcParams)
    to_png(draw(noise(2, 3, 32, 32)))
    assert dict(matplotlib.rcParams) == before
    from matplotlib import _pylab_helpers

    assert not _pylab_helpers.Gcf.figs


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="images must be N×C×H×W"):
        draw_predictions(noise(3, 8, 8), ["cat"], [0.5])


@pytest.mark.parametrize("channels", [2, 4])
def test_of_other_channels_the_mean_is_shown(channels: int) -> None:
    images = noise(1, channels, 8, 8)
    mean = images.float().mean(1, keepdim=True).round().to(torch.uint8)
    shown, expected = (draw_predictions(these, ["cat"], [0.5]).pixels for these in (images, mean))
    assert (shown == expected).all()


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
