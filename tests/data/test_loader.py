"""Which images make up which batch, on which process."""

import pytest
import torch

from cnn_lightning.data import Features, ImageLoader, Sharding
from cnn_lightning.errors import UserError


def indices_of(num_images: int, batch_size: int, world_size: int, least: int) -> list[list[int]]:
    """The batches of all processes, one after the other."""
    batches = []
    for rank in range(world_size):
        sharding = Sharding(num_images, batch_size, rank, world_size, least)
        batches += [
            list(range(num_images))[sharding.slice(number)] for number in range(len(sharding))
        ]
    return batches


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 5, 64])
@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("num_images", [6, 7, 11, 20, 21, 64, 65, 129])
def test_every_image_is_seen_once_and_no_batch_is_too_small(
    num_images: int, batch_size: int, world_size: int, least: int
) -> None:
    batches = indices_of(num_images, batch_size, world_size, least)
    assert sorted(index for batch in batches for index in batch) == list(range(num_images))
    assert all(len(batch) >= least for batch in batches)
    counts = {
        len(Sharding(num_images, batch_size, r, world_size, least)) for r in range(world_size)
    }
    assert len(counts) == 1  # collective operations need as many batches everywhere


def test_last_batch_of_one_joins_the_one_before() -> None:
    sharding = Sharding(9, 4, least=2)
    assert len(sharding) == 2
    assert list(range(9))[sharding.slice(1)] == [4, 5, 6, 7, 8]


def test_last_batch_of_two_stays() -> None:
    assert len(Sharding(10, 4, least=2)) == 3


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="too few"):
        Sharding(3, 4, world_size=2, least=2)


def loader(**kwargs: object) -> ImageLoader:
    images = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1)
    indices = torch.tensor([0, 2, 4, 6, 8, 9])
    return ImageLoader(images, torch.arange(10), indices, Sharding(6, 2), **kwargs)  # type: ignore[arg-type]


def test_batches_hold_the_images_of_their_indices() -> None:
    for batch in loader(seed=3):
        assert batch.images.flatten().tolist() == batch.indices.tolist() == batch.labels.tolist()


def test_features_stand_for_their_images() -> None:
    features = Features(10.0 * torch.arange(10).unsqueeze(1))
    for batch in loader(seed=3, features=lambda: features):
        assert batch.is_features
        assert batch.images.flatten().tolist() == [10 * index for index in batch.indices.tolist()]


@pytest.mark.parametrize("stays", [True, False])
def test_features_are_read_where_they_lie_unless_they_are_moved(*, stays: bool) -> None:
    features = Features(torch.zeros(10, 1), lambda places: 10.0 * places.unsqueeze(1))
    move = (lambda rows: rows) if stays else (lambda rows: rows + 1)
    for batch in loader(features=lambda: features, move=move):
        read = [10 * index for index in batch.indices.tolist()]
        assert batch.images.flatten().tolist() == (read if stays else [1] * len(read))


def test_order_without_a_seed_is_that_of_the_split() -> None:
    assert torch.cat([batch.indices for batch in loader()]).tolist() == [0, 2, 4, 6, 8, 9]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    one = loader(seed=1)
    assert torch.equal(one.order(5), loader(seed=1).order(5))
    assert not torch.equal(one.order(5), one.order(6))
    assert not torch.equal(one.order(5), loader(seed=2).order(5))


def test_place_is_asked_when_the_first_batch_is_drawn() -> None:
    place = [0, 0]
    resumed = loader(seed=1, place=lambda: tuple(place))
    batches = iter(resumed)
    place[:] = [4, 1]
    drawn = torch.cat([batch.indices for batch in batches])
    assert torch.equal(drawn, resumed.order(4)[2:])
