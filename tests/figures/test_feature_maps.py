from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from texts import assert_sheet_readable

from cnn_lightning.figures import (
    Sheet,
    WholeMaps,
    draw_feature_maps,
    draw_kernels,
    shrink_maps,
    to_array,
    to_png,
)
from cnn_lightning.figures.tiles import Tile, describe_range, draw_tiles, map_pixels


def texts(sheet: Sheet) -> list[str]:
    return [text for text, _ in sheet.texts]


def test_a_tile_shows_every_value_in_the_colour_of_its_scale() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    pixels = to_array(draw_feature_maps(images, maps, "title"))
    colours = (colormaps["viridis"](np.linspace(0, 1, 16))[:, :3] * 255).round()
    for value, colour in enumerate(colours):
        alike = (pixels.permute(1, 2, 0).float() - torch.tensor(colour)).abs().amax(-1) <= 1
        # each value is a square of 14×14 pixels: a 4×4 map shown 56 pixels large
        assert alike.sum() >= 14 * 14, value


def test_one_channel_has_one_scale_for_all_images_and_it_is_written_down() -> None:
    maps = torch.zeros(2, 2, 3, 3)
    maps[0, 0, 0, 0], maps[1, 0, 0, 0] = -2.0, 3.5
    sheet = draw_feature_maps(
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8), maps, "conv", names=["cat", "dog"]
    )
    words = texts(sheet)
    assert "channel 0\n-2 … 3.5" in words
    assert "channel 1\n0 … 0" in words
    assert {"cat", "dog", "image"} <= set(words)
    assert any("2 channels of 3×3" in line for line in words)


def test_channels_that_are_left_out_are_said() -> None:
    maps = torch.rand(1, 40, 3, 3)
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    shortened = draw_feature_maps(images, maps, "conv", max_channels=16)
    assert any("40 channels of 3×3, the first 16 shown" in line for line in texts(shortened))
    assert sum("channel " in line for line in texts(shortened)) == 16
    first = draw_feature_maps(
        images, maps[:, :16], "conv", whole=WholeMaps.of(maps[:, :16], num_channels=40)
    )
    assert texts(first) == texts(shortened)
    assert sum("channel " in line for line in texts(draw_feature_maps(images, maps, "conv"))) == 40


@pytest.mark.parametrize(("side", "image_side"), [(224, 224), (112, 224), (14, 224), (60, 28)])
def test_maps_that_are_shrunk_first_are_drawn_as_they_would_be(side: int, image_side: int) -> None:
    images = torch.zeros(4, 3, image_side, image_side, dtype=torch.uint8)
    # what lies far apart: neighbours are alike, as where a colour's mean is a mean's colour
    maps = F.interpolate(torch.rand(4, 20, 2, 2), (side, side), mode="bilinear")
    whole = WholeMaps.of(maps[:3], 64).joined(WholeMaps.of(maps[3:], 64))
    small = torch.cat([shrink_maps(few, 4, (image_side, image_side)) for few in maps.split(3)])
    sheet = draw_feature_maps(images, small, "conv", whole=whole)
    reference = draw_feature_maps(images, maps, "conv", whole=WholeMaps.of(maps, 64))
    assert (small.shape == maps.shape) == (side in (14, 60))
    assert texts(sheet) == texts(reference)
    assert any(f"64 channels of {side}×{side}, the first 20 shown" in text for text in texts(sheet))
    found, wanted = to_array(sheet), to_array(reference)
    assert found.shape == wanted.shape
    assert (found.int() - wanted.int()).abs().max() <= 4


@pytest.mark.parametrize("name", ["a", "a class with quite a long name $x_1$", "\n".join("ẬÅgjpq")])
def test_no_text_is_cut_or_lies_on_another(name: str) -> None:
    maps = torch.rand(10, 16, 10, 10) * 1e-6
    sheet = draw_feature_maps(
        torch.zeros(10, 1, 28, 28, dtype=torch.uint8), maps, "Output of a layer", names=[name] * 10
    )
    assert_sheet_readable(sheet)
    assert texts(sheet).count(name) == 10


def test_even_noise_is_a_file_of_less_than_1_mb() -> None:
    images = torch.randint(0, 256, (10, 3, 224, 224), dtype=torch.uint8)
    sheet = draw_feature_maps(images, torch.randn(10, 16, 112, 112), "noise")
    assert len(to_png(sheet)) < 1_000_000


def test_maps_of_other_images_are_refused() -> None:
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="2×F×h×w"):
        draw_feature_maps(images, torch.rand(3, 4, 8, 8), "conv")
    with pytest.raises(ValueError, match="2×F×h×w"):
        draw_feature_maps(images, torch.rand(2, 4), "linear")


def test_colour_kernels_show_their_colours() -> None:
    weight = torch.zeros(1, 3, 2, 2)
    weight[0, 0, 0, 0], weight[0, 2, 1, 1] = 0.5, -0.5
    pixels = to_array(draw_kernels(weight, "kernels")).permute(1, 2, 0)
    for colour in ((255, 128, 128), (128, 128, 0), (128, 128, 128)):
        assert (pixels == torch.tensor(colour)).all(-1).any(), colour


def test_three_channels_of_a_layer_are_no_colours() -> None:
    words = texts(draw_kernels(torch.randn(2, 3, 5, 5), "conv2", sees_image=False))
    assert "conv2\n2 × 3 kernels of 5×5\npurple is below 0, orange above" in words
    assert [word.split("\n")[0] for word in words[1:]] == ["0←0", "0←1", "0←2", "1←0", "1←1", "1←2"]


def test_kernels_of_grey_images_stand_around_white() -> None:
    weight = torch.tensor([[[[1.0, 0.0], [-1.0, 0.5]]]])
    sheet = draw_kernels(weight, "kernels")
    assert "0\n±1" in texts(sheet)
    ends = map_pixels(torch.tensor([[-1.0, 0.0, 1.0]]), -1, 1, "PuOr_r")[0].tolist()
    assert min(ends[1]) > 240
    assert ends[0][2] > ends[0][1]  # purple
    assert ends[2][0] > ends[2][2]  # orange


def test_kernels_of_one_number_share_a_scale() -> None:
    sheet = draw_kernels(torch.tensor([1.0, -0.5, 0.0]).reshape(3, 1, 1, 1), "")
    assert {"0\n1", "1\n-0.5", "2\n0"} <= set(texts(sheet))
    assert any("one scale for all: ±1" in line for line in texts(sheet))
    pixels = to_array(sheet).permute(1, 2, 0)
    for colour in map_pixels(torch.tensor([1.0, -0.5, 0.0])[:, None, None], -1, 1, "PuOr_r"):
        assert (pixels == torch.from_numpy(colour)).all(-1).sum() >= 56 * 56


def test_maps_and_kernels_say_what_their_colours_are() -> None:
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    maps = draw_feature_maps(images, torch.rand(1, 2, 4, 4), "")
    assert any("dark to bright" in line for line in texts(maps))
    assert any("grey is 0" in line for line in texts(draw_kernels(torch.rand(2, 3, 3, 3), "")))


def test_kernels_that_are_left_out_are_said() -> None:
    words = texts(draw_kernels(torch.randn(16, 6, 5, 5), "conv2"))
    assert any("16 × 6 kernels of 5×5, the first 64 shown" in line for line in words)
    assert "0←0\n" in "\n".join(words)
    with pytest.raises(ValueError, match="F×C×h×w"):
        draw_kernels(torch.randn(16, 6), "linear")


def test_kernels_that_are_left_out_are_not_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, cut = torch.randn(64, 32, 1, 1), []
    take = torch.Tensor.__getitem__

    def count(tensor: torch.Tensor, place: Any) -> torch.Tensor:
        cut.append(place)
        return take(tensor, place)

    monkeypatch.setattr(torch.Tensor, "__getitem__", count)
    assert any(
        "the first 5 shown" in line for line in texts(draw_kernels(weight, "", max_kernels=5))
    )
    assert 5 <= len(cut) <= 10  # one for its number, and one to draw it


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_as_many_kernels_as_are_drawn_are_not_called_the_first(channels: int) -> None:
    for count, said in ((4, False), (5, True)):
        words = texts(draw_kernels(torch.randn(count, channels, 3, 3), "", max_kernels=4))
        assert any("the first 4 shown" in line for line in words) == said


def test_numbers_of_a_scale_keep_three_digits() -> None:
    assert describe_range(-12.345, 0.00123) == "-12.3 … 1.2e-03"
    assert describe_range(0, 0.05) == "0 … 0.05"


def test_empty_places_stay_white() -> None:
    tile = Tile(np.zeros((4, 4, 3), dtype=np.uint8))
    sheet = draw_tiles("", [[tile, None], [None, tile]])
    dark = (to_array(sheet) == 0).all(0).sum()
    assert dark == 2 * 56 * 56
