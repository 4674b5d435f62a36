import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from cnn_lightning.augment import Augmentation, average_views, flip_horizontally, pad_and_crop

CROP_FLIP, FLIP = Augmentation("random", padding=4), Augmentation("random")
DTYPES = [torch.uint8, torch.float32, torch.float16, torch.int64, torch.bool]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(num_images: int = 40, dtype: torch.dtype = torch.uint8) -> Tensor:
    shape = (num_images, 3, 9, 7)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator()).to(dtype)


def moved_by_torchvision(
    images: Tensor, offsets: Tensor, padding: int, mode: str = "constant"
) -> Tensor:
    height, width = images.shape[2:]
    return torch.stack(
        [
            reference.crop(
                reference.pad(image, [padding] * 4, padding_mode=mode), top, left, height, width
            )
            for image, (top, left) in zip(images, offsets.tolist(), strict=True)
        ]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("padding", [0, 1, 4, 12])
def test_pad_and_crop_is_torchvisions_bit_for_bit(padding: int, dtype: torch.dtype) -> None:
    images = some_images(dtype=dtype)
    offsets = torch.randint(2 * padding + 1, (40, 2), generator=generator())
    moved = pad_and_crop(images, offsets, padding)
    assert moved.dtype == dtype
    assert torch.equal(moved, moved_by_torchvision(images, offsets, padding))


def test_every_offset_is_torchvisions() -> None:
    offsets = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    images = some_images(25)
    assert torch.equal(pad_and_crop(images, offsets, 2), moved_by_torchvision(images, offsets, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("padding", [1, 2, 6])
def test_reflected_borders_are_torchvisions_bit_for_bit(padding: int, dtype: torch.dtype) -> None:
    images = some_images(dtype=dtype)
    offsets = torch.randint(2 * padding + 1, (40, 2), generator=generator())
    offsets[0], offsets[1] = 0, 2 * padding  # as far as it goes
    moved = pad_and_crop(images, offsets, padding, "reflect")
    assert torch.equal(moved, moved_by_torchvision(images, offsets, padding, "reflect"))
    assert not torch.equal(moved, pad_and_crop(images, offsets, padding))


def test_a_border_wider_than_the_image_cannot_be_reflected() -> None:
    with pytest.raises(ValueError, match="7 pixels cannot be reflected in 9×7"):
        pad_and_crop(some_images(), torch.full((40, 2), 7), 7, "reflect")


def test_an_offset_of_the_padding_moves_nothing() -> None:
    images = some_images()
    assert torch.equal(pad_and_crop(images, torch.full((40, 2), 4), 4), images)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flip_is_torchvisions_bit_for_bit(dtype: torch.dtype) -> None:
    images = some_images(dtype=dtype)
    mask = torch.arange(40) % 3 == 0
    flipped = flip_horizontally(images, mask)
    assert flipped.dtype == dtype
    assert torch.equal(flipped[mask], reference.horizontal_flip(images[mask]))
    assert torch.equal(flipped[~mask], images[~mask])


@pytest.mark.parametrize("border", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", [1, 4])
def test_crop_flip_crops_and_then_flips(padding: int, border: str) -> None:
    images, draws = some_images(), generator(1)
    offsets = torch.randint(2 * padding + 1, (40, 2), generator=draws)
    mask = torch.randint(2, (40,), generator=draws).bool()
    mode = "reflect" if border == "reflect" else "constant"
    expected = moved_by_torchvision(images, offsets, padding, mode)
    expected[mask] = reference.horizontal_flip(expected[mask])
    found = Augmentation("random", padding, border)(images, generator(1))  # type: ignore[arg-type]
    assert torch.equal(found, expected)


def test_flip_flips_by_its_draws() -> None:
    images = some_images()
    mask = torch.randint(2, (40,), generator=generator(1)).bool()
    assert torch.equal(FLIP(images, generator(1)), flip_horizontally(images, mask))


@pytest.mark.parametrize("padding", [0, 4])
def test_alternating_flips_show_each_image_both_ways_in_any_two_epochs(padding: int) -> None:
    images, indices = some_images(), torch.arange(40) * 7
    augment = Augmentation("alternating", padding)

    def seen(epoch: int, order: Tensor) -> Tensor:
        found = augment(images[order], generator(1), indices=indices[order], epoch=epoch, seed=5)
        return found[order.argsort()]

    straight = Augmentation(padding=padding)(images, generator(1))
    in_order = torch.arange(40)
    first, second, third = (seen(epoch, in_order) for epoch in (4, 5, 6))
    # the mirror of a moved image: columns are chosen from the same window
    assert torch.equal(first, reference.horizontal_flip(second))
    assert torch.equal(first, third)
    flipped = ~(first == straight).flatten(1).all(1)
    assert torch.equal(first[flipped], reference.horizontal_flip(straight[flipped]))
    assert 8 < flipped.sum() < 32
    if not padding:  # nothing else is drawn: the place in the batch does not matter
        assert torch.equal(seen(4, torch.randperm(40, generator=generator())), first)


def test_alternating_flips_are_the_same_drawn_once_for_the_whole_data_set() -> None:
    images, indices = some_images(), torch.arange(40) * 7
    augment = Augmentation("alternating")
    for epoch in (0, 1):
        one, all_at_once = (
            augment(images, generator(), indices=indices, epoch=epoch, seed=5, num_images=number)
            for number in (None, 280)
        )
        assert torch.equal(one, all_at_once)


def test_alternating_flips_need_to_know_the_images() -> None:
    with pytest.raises(ValueError, match="need the indices"):
        Augmentation("alternating")(some_images(), generator())


@pytest.mark.parametrize("augment", [CROP_FLIP, FLIP], ids=["crop_flip", "flip"])
def test_the_generator_alone_decides(augment: Augmentation) -> None:
    images = some_images()
    before = torch.get_rng_state()
    assert torch.equal(augment(images, generator(1)), augment(images, generator(1)))
    assert not torch.equal(augment(images, generator(1)), augment(images, generator(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_all_offsets_come_up_equally_often_and_half_are_flipped() -> None:
    # the brightest pixel says where the image went; it is off the middle, so flips show
    images = torch.zeros(18_000, 1, 7, 7)
    images[:, :, 3, 2] = 1
    place = Augmentation("random", 1)(images, generator()).flatten(1).argmax(1)
    # column 1..3 straight and 3..5 mirrored: 3 has both
    counts = torch.bincount(place, minlength=49).reshape(7, 7)[2:5, 1:6]
    expected = torch.tensor([1.0, 1, 2, 1, 1]).expand(3, 5) * 1000
    # six standard deviations of a count of 2000
    assert (counts - expected).abs().max() < 6 * 2000**0.5
    assert counts.sum() == 18_000


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_does_not_matter_and_the_input_stays(layout: torch.memory_format) -> None:
    images = some_images().contiguous(memory_format=layout)
    before = images.clone()
    assert torch.equal(CROP_FLIP(images, generator()), CROP_FLIP(some_images(), generator()))
    assert torch.equal(images, before)


def test_an_empty_batch_stays_empty() -> None:
    assert CROP_FLIP(some_images()[:0], generator()).shape == (0, 3, 9, 7)


@pytest.mark.parametrize("offsets", [torch.zeros(40), torch.zeros(39, 2), torch.zeros(40, 3)])
def test_offsets_of_another_shape_are_refused(offsets: Tensor) -> None:
    with pytest.raises(ValueError, match="offsets must be 40×2"):
        pad_and_crop(some_images(), offsets.long(), 4)


@pytest.mark.parametrize("offset", [-1, 9])
def test_offsets_out_of_range_are_refused(offset: int) -> None:
    offsets = torch.full((40, 2), 4)
    offsets[7, 1] = offset
    with pytest.raises(ValueError, match=r"offsets must lie in 0\.\.8"):
        pad_and_crop(some_images(), offsets, 4)


@pytest.mark.parametrize("mask", [torch.ones(40), torch.ones(39, dtype=torch.bool)])
def test_masks_of_another_kind_are_refused(mask: Tensor) -> None:
    with pytest.raises(ValueError, match="mask must be 40 bool"):
        flip_horizontally(some_images(), mask)


def look(images: Tensor) -> Tensor:
    """A network that is no linear function and that flips and moves change."""
    weights = torch.linspace(-1, 1, 4 * 3 * 9 * 7).reshape(4, -1) ** 3
    return (images.flatten(1) @ weights.T).sin()


def test_views_are_weighed_as_in_airbench() -> None:
    images = torch.rand(5, 3, 9, 7, generator=generator())
    weighed = []
    for top, left, weight in ((0, 0, 1 / 4), (1, 1, 1 / 8), (-1, -1, 1 / 8)):
        # image[y, x] comes from [y + top, x + left], reflected at the border by hand
        rows = [min(abs(y + top), 16 - abs(y + top)) for y in range(9)]
        columns = [min(abs(x + left), 12 - abs(x + left)) for x in range(7)]
        moved = images[:, :, rows][:, :, :, columns]
        weighed += [weight * look(moved), weight * look(reference.horizontal_flip(moved))]
    torch.testing.assert_close(average_views(look, images, "flip_shift"), sum(weighed))
    pair = (look(images) + look(reference.horizontal_flip(images))) / 2
    torch.testing.assert_close(average_views(look, images, "flip"), pair)
    assert torch.equal(average_views(look, images, "none"), look(images))
    assert not torch.allclose(pair, look(images))  # the network does see a difference


def test_an_image_and_its_mirror_image_get_the_same_logits() -> None:
    images = torch.rand(5, 3, 9, 7, generator=generator())
    found = average_views(look, images, "flip")
    torch.testing.assert_close(average_views(look, images.flip(3), "flip"), found)
