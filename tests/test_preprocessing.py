import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnn_lightning.preprocessing import Preprocessing

MEAN, STD = (0.49, 0.48, 0.44), (0.2, 0.19, 0.21)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 10, 12), dtype=torch.uint8, generator=generator)


def test_normalises_by_the_formula(images: Tensor) -> None:
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    expected = (images.double() / 255 - mean.double()) / std.double()
    prepared = Preprocessing(MEAN, STD)(images)
    # two roundings of float32 at values up to 5
    torch.testing.assert_close(prepared.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [None, 7, 10, 11, 24])
def test_result_is_float32_and_channels_last(images: Tensor, size: int | None) -> None:
    prepared = Preprocessing(MEAN, STD, size)(images)
    assert prepared.dtype == torch.float32
    assert prepared.shape == (5, 3, *((size, size) if size else (10, 12)))
    assert prepared.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [7, 11, 24])
def test_resizes_like_interpolate_and_antialiases_only_when_it_shrinks(
    images: Tensor, size: int
) -> None:
    resized = F.interpolate(
        images.float(), (size, size), mode="bilinear", align_corners=False, antialias=size < 12
    )
    plain = Preprocessing((0.0,) * 3, (1 / 255,) * 3, size)(images)  # normalises by 1
    # 1 / (255 · (1 / 255)) may differ from 1 in the last bit of float32
    torch.testing.assert_close(plain, resized, rtol=2e-7, atol=0)


def test_shrinking_averages_what_plain_interpolation_skips() -> None:
    stripes = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    stripes[..., ::4] = 255
    inner = Preprocessing((0.0,), (1.0,), size=4)(stripes)[..., 1:3]
    skipped = F.interpolate(stripes.float() / 255, (4, 4), mode="bilinear")[..., 1:3]
    assert skipped.max() == 0
    assert inner.min() > 0.1


def test_no_resize_when_the_images_have_the_size(images: Tensor) -> None:
    square = images[..., :10]
    assert torch.equal(Preprocessing(MEAN, STD, 10)(square), Preprocessing(MEAN, STD)(square))


@pytest.mark.parametrize("size", [None, 7, 24])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_has_the_same_bits_in_any_batch_and_layout(
    images: Tensor, size: int | None, channels: int
) -> None:
    prepare = Preprocessing(MEAN[:channels], STD[:channels], size)
    images = images[:, :channels]
    together = prepare(images)
    assert torch.equal(torch.cat([prepare(image[None]) for image in images]), together)
    assert torch.equal(prepare(images.contiguous(memory_format=torch.channels_last)), together)


def test_leaves_its_input_as_it_was(images: Tensor) -> None:
    before = images.clone()
    Preprocessing(MEAN, STD)(images)
    assert torch.equal(images, before)


def test_undo_gives_back_every_value() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    prepare = Preprocessing(MEAN, STD)
    assert torch.equal(prepare.undo(prepare(images)), images)


def test_undo_clamps() -> None:
    prepare = Preprocessing((0.5,), (0.25,))
    looked_at = prepare.undo(torch.tensor([-9.0, 0.0, 9.0]).reshape(1, 1, 1, 3))
    assert looked_at.flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("size", [None, 224])
def test_the_dictionary_holds_plain_values_and_builds_the_same(size: int | None) -> None:
    prepare = Preprocessing(MEAN, STD, size)
    assert prepare.as_dict() == {"mean": list(MEAN), "std": list(STD), "size": size}
    assert Preprocessing.from_dict(prepare.as_dict()) == prepare


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (2, 4, 8, 8)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images must be N×3×H×W"):
        Preprocessing(MEAN, STD)(torch.zeros(shape, dtype=torch.uint8))


def test_images_that_are_floats_already_are_refused() -> None:
    with pytest.raises(ValueError, match="images must be uint8"):
        Preprocessing(MEAN, STD)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("mean", "std", "size", "message"),
    [
        ((0.5,), (0.1, 0.1), None, "one number per channel"),
        ((), (), None, "one number per channel"),
        ((0.5,), (0.0,), None, "must be above 0"),
        ((0.5,), (math.nan,), None, "must be above 0"),
        ((0.5,), (0.1,), 0, "must be at least 1"),
    ],
)
def test_impossible_constants_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...], size: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(mean, std, size)


@pytest.mark.parametrize("size", [None, 9])
def test_values_are_the_same_in_both_layouts(size: int | None) -> None:
    images = torch.randint(0, 256, (3, 3, 12, 12), dtype=torch.uint8)
    last = Preprocessing(MEAN, STD, size)(images)
    first = Preprocessing(MEAN, STD, size, channels_last=False)(images)
    assert torch.equal(last, first)
    assert first.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
