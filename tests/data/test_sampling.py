"""Balanced sampling, counted image by image."""

from pathlib import Path

import pytest
import torch
from make_data import make_folder
from torch import Tensor

from cnn_lightning.data import ImageFolderDataModule, ImageLoader, Sharding
from cnn_lightning.data.sampling import balanced_counts, balanced_order

# 40 images of class 0, 7 of class 1, 2 of class 3, none of class 2
LABELS = torch.tensor([0] * 40 + [1] * 7 + [3] * 2)[torch.arange(49) * 10 % 49]
QUOTA = 17  # 49 images of three classes, rounded up


def seen(epochs: int, seed: int = 5) -> Tensor:
    return torch.cat([balanced_order(LABELS, seed, epoch) for epoch in range(epochs)])


def test_every_class_comes_equally_often_in_every_epoch() -> None:
    assert balanced_counts(LABELS, 5).tolist() == [QUOTA, QUOTA, 0, QUOTA, 0]
    for epoch in range(5):
        counts = torch.bincount(LABELS[balanced_order(LABELS, 1, epoch)], minlength=4)
        assert counts.tolist() == [QUOTA, QUOTA, 0, QUOTA]


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
def test_no_image_comes_again_before_all_of_its_class_have_come(epochs: int) -> None:
    counts = torch.bincount(seen(epochs), minlength=len(LABELS))
    for label, size in ((0, 40), (1, 7), (3, 2)):
        own = counts[label == LABELS]
        assert own.min() == epochs * QUOTA // size
        assert own.max() == -(-epochs * QUOTA // size)


def test_order_is_a_function_of_seed_and_epoch_and_mixes_the_classes() -> None:
    one = balanced_order(LABELS, 1, 3)
    assert torch.equal(one, balanced_order(LABELS, 1, 3))
    assert not torch.equal(one, balanced_order(LABELS, 1, 4))
    assert not torch.equal(one, balanced_order(LABELS, 2, 3))
    assert (LABELS[one].diff() != 0).sum() > len(one) // 3


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_an_epoch_and_each_batch_is_the_same_for_all(world_size: int) -> None:
    indices = torch.arange(100, 149)
    labels = torch.zeros(149, dtype=torch.int64)
    labels[100:] = LABELS

    def batches(rank: int) -> list[Tensor]:
        loader = ImageLoader(
            torch.zeros(149, 1, 1, 1, dtype=torch.uint8),
            labels,
            indices,
            Sharding(3 * QUOTA, 12 // world_size, rank, world_size, least=2),
            seed=1,
            place=lambda: (4, 0),
            balanced=True,
        )
        return [batch.indices for batch in loader]

    parts = [batches(rank) for rank in range(world_size)]
    whole = []
    for one in zip(*parts, strict=True):
        together = torch.empty(sum(map(len, one)), dtype=torch.int64)
        for rank, part in enumerate(one):
            together[rank::world_size] = part
        whole.append(together)
    assert torch.equal(torch.cat(whole), 100 + balanced_order(LABELS, 1, 4))


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    root = make_folder(tmp_path / "photos", ("ant", "bee", "cow"), per_class=20, size=(8, 8))
    for place, keep in (("bee", 10), ("cow", 4)):
        for path in sorted((root / "train" / place).iterdir())[keep:]:
            path.unlink()
    return root


def module(root: Path, **options: object) -> ImageFolderDataModule:
    return ImageFolderDataModule(root=str(root), batch_size=8, **options)


def test_a_data_module_balances_training_alone(uneven: Path) -> None:
    data = module(uneven, sampling="balanced")
    # a tenth of each class is held out: 18, 9 and 3 are left, which is 30 of 3 classes
    assert data.class_counts().tolist() == [10, 10, 10]
    drawn = torch.cat([batch.labels for batch in data.train_dataloader()])
    assert drawn.bincount().tolist() == [10, 10, 10]
    indices = torch.cat([batch.indices for batch in data.train_dataloader()])
    assert set(indices.tolist()) <= set(data.stage_indices("train").tolist())
    held_out = torch.cat([batch.indices for batch in data.val_dataloader()])
    assert held_out.tolist() == data.stage_indices("val").tolist()


def test_without_it_every_image_comes_once(uneven: Path) -> None:  # the control
    data = module(uneven)
    assert data.class_counts().tolist() == [18, 9, 3]
    indices = torch.cat([batch.indices for batch in data.train_dataloader()])
    assert sorted(indices.tolist()) == data.stage_indices("train").tolist()
