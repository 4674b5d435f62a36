import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cnn_lightning.data.shapes import _DISTANCES, ShapesDataModule, draw_shapes
from cnn_lightning.errors import UserError
from cnn_lightning.randomness import generator


def small(**kwargs: Any) -> ShapesDataModule:
    return ShapesDataModule(**{"num_images": 200, "num_test": 100, **kwargs})


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    return draw_shapes(1000, generator("test shapes"))


def test_images_labels_and_masks_have_their_shapes(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    images, labels, masks = drawn
    assert (images.shape, images.dtype) == ((1000, 3, 32, 32), torch.uint8)
    assert (labels.shape, labels.dtype) == ((1000,), torch.int64)
    assert (masks.shape, masks.dtype) == ((1000, 32, 32), torch.bool)


@pytest.mark.parametrize("count", [200, 207])
def test_labels_are_balanced_and_shuffled(count: int) -> None:
    _, labels, _ = draw_shapes(count, generator("test shapes"))
    counts = labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    assert not torch.equal(labels, torch.arange(count) % 10)


def test_drawing_depends_on_the_seed_and_the_split_alone() -> None:
    first, again, other = small(), small(batch_size=7, split_seed=3), small(seed=1)
    before = torch.random.get_rng_state()
    for one, two in zip(first.read("train"), again.read("train"), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(first.read("train")[0], other.read("train")[0])
    assert not torch.equal(first.read("train")[0][:100], first.read("test")[0])


def test_every_shape_is_there_in_full(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    _, labels, masks = drawn
    # pixels of the smallest and the largest: a thin bar, and a disc of 0.85 · 0.4 · 32 pixels
    areas = masks.flatten(1).sum(1)
    assert areas.min() >= 20
    assert areas.max() <= math.pi * (0.85 * 0.4 * 32) ** 2 * 1.05
    for label in range(10):
        assert len(set(areas[labels == label].tolist())) > 10


def test_a_mask_is_where_the_colour_is(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    images, _, masks = drawn
    values = images.double() / 255
    inside = masks[:, None].double()
    mean_in = (values * inside).sum((2, 3)) / inside.sum((2, 3))
    mean_out = (values * (1 - inside)).sum((2, 3)) / (1 - inside).sum((2, 3))
    # colours differ by 0.35 at least; smooth edges and clipped noise bring the means closer
    assert (mean_in - mean_out).norm(dim=1).min() > 0.2
    split = torch.where(masks[:, None], mean_in[..., None, None], mean_out[..., None, None])
    # what the two colours leave over is the noise of 0.06 and the edges
    assert (values - split).pow(2).mean().sqrt() < 0.1


def test_edges_are_smooth() -> None:
    _, _, masks = draw_shapes(50, generator("edges"), size=64)
    images, _, _ = draw_shapes(50, generator("edges"), size=64)
    values = images.double() / 255
    # some pixels lie between the two colours, and only at the edge
    inside = masks[:, None].double()
    core = torch.nn.functional.avg_pool2d(inside, 5, 1, 2, count_include_pad=False)
    edge = (core > 0) & (core < 1)
    colour = (values * (core == 1)).sum((2, 3)) / (core == 1).sum((2, 3)).clamp(min=1)
    ground = (values * (core == 0)).sum((2, 3)) / (core == 0).sum((2, 3))
    nearest = torch.minimum(
        (values - colour[..., None, None]).norm(dim=1),
        (values - ground[..., None, None]).norm(dim=1),
    )
    far = nearest > 0.3
    assert far.sum() > 500
    assert (far & edge[:, 0]).sum() / far.sum() > 0.95


@pytest.mark.parametrize("label", range(10))
def test_a_shape_fits_the_unit_circle_and_its_distance_is_no_overestimate(label: int) -> None:
    axis = torch.linspace(-1.5, 1.5, 301)
    distance = _DISTANCES[label](axis[None, :].expand(301, -1), axis[:, None].expand(-1, 301))
    radius = torch.hypot(axis[None, :], axis[:, None])
    assert (distance[radius > 1.03] > 0).all()
    # a distance changes by at most the step
    step = axis[1] - axis[0]
    assert distance.diff(dim=0).abs().max() <= step * 1.01
    assert distance.diff(dim=1).abs().max() <= step * 1.01


def test_the_data_module_knows_where_the_shapes_are() -> None:
    data = small(image_size=24)
    for split, count in (("train", 200), ("test", 100)):
        images, _ = data.load("train" if split == "train" else "test")
        masks = data.masks("train" if split == "train" else "test")
        assert images.shape == (count, *data.image_shape)
        assert masks.shape == (count, 24, 24)


def test_mean_and_std_are_those_of_the_default_set() -> None:
    data = ShapesDataModule()
    std, mean = torch.std_mean(data.read("train")[0].double() / 255, dim=(0, 2, 3))
    # the constants have three digits
    assert mean.tolist() == pytest.approx(data.mean, abs=6e-4)
    assert std.tolist() == pytest.approx(data.std, abs=6e-4)


@pytest.mark.parametrize("wrong", [{"num_images": 19}, {"num_test": 9}, {"image_size": 15}])
def test_too_few_or_too_small_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"):
        small(**wrong)
