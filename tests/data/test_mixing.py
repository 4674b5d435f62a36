"""Mixup and CutMix against the formulas of their papers."""

from pathlib import Path

import lightning as L
import pytest
import torch
from stopping import assert_resumes_exactly
from torch import Tensor
from torch.nn import functional as F

from cnn_lightning.data import ShapesDataModule
from cnn_lightning.data.loader import Batch
from cnn_lightning.data.mixing import Mixing
from cnn_lightning.errors import UserError

CLASSES = F.one_hot(torch.tensor([0, 1, 2, 3, 1])).float()
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 120, num_test: 20, batch_size: 30, mixup: 0.4, cutmix: 1.0}
model: {class_path: LeNet, init_args: {label_smoothing: 0.1}}
trainer: {max_epochs: 2}
"""


def some_images(side: int = 8) -> Tensor:
    return torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(0))


def share(targets: Tensor) -> float:
    """The share of its own class in the first image, whose neighbour is of another."""
    return targets[0, 0].item()


def test_mixup_mixes_images_and_targets_alike() -> None:
    images = some_images()
    for draw in range(5):
        mixed, targets = Mixing(mixup=1.0)(images, CLASSES, draw)
        part = share(targets)
        assert 0 < part < 1
        torch.testing.assert_close(mixed, part * images + (1 - part) * images.roll(1, 0))
        torch.testing.assert_close(targets, part * CLASSES + (1 - part) * CLASSES.roll(1, 0))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_images_keep_their_order_in_memory(kind: str, layout: torch.memory_format) -> None:
    images = some_images().contiguous(memory_format=layout)
    mixed, _ = Mixing(**{kind: 1.0})(images, CLASSES, 0)
    assert mixed.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_have_the_moments_of_a_beta_distribution(alpha: float) -> None:
    mix, images = Mixing(mixup=alpha), torch.zeros(5, 1, 1, 1)
    shares = torch.tensor([share(mix(images, CLASSES, "draw", n)[1]) for n in range(3000)]).double()
    variance = 1 / (4 * (2 * alpha + 1))
    # five standard errors; that of a variance is at most sqrt(1/16 / N)
    assert abs(shares.mean() - 0.5) < 5 * (variance / 3000) ** 0.5
    assert abs(shares.var() - variance) < 5 * (1 / 16 / 3000) ** 0.5


def box_of(mixed: Tensor, images: Tensor) -> Tensor:
    """Where an image is its neighbour's, H×W bool; the same in all images and channels."""
    pasted = (mixed == images.roll(1, 0)) & (mixed != images)
    assert torch.equal(mixed[~pasted], images[~pasted])
    assert (pasted == pasted[:1, :1]).all()
    return pasted[0, 0]


def test_cutmix_pastes_a_box_with_the_area_of_the_other_class() -> None:
    images, inner, mix = some_images(16), 0, Mixing(cutmix=1.0)
    for draw in range(200):
        mixed, targets = mix(images, CLASSES, draw)
        box, part = box_of(mixed, images), share(targets)
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns)  # a box, and in one piece
        assert max(places.int().diff().abs().sum() for places in (rows, columns)) <= 2
        assert part == pytest.approx(1 - box.sum().item() / 16**2)
        torch.testing.assert_close(targets, part * CLASSES + (1 - part) * CLASSES.roll(1, 0))
        at_border = rows[0] | rows[-1] | columns[0] | columns[-1]
        if box.any() and not at_border:  # not cut off: as wide as high, as the image is
            assert rows.sum() == columns.sum()
            inner += 1
    assert inner > 20


def test_areas_of_cutmix_follow_from_evenly_drawn_shares() -> None:
    # with alpha 1, l is even in 0..1, the side of a box sqrt(1 - l) of the image's, and its centre
    # anywhere; the mean of what remains inside is worked out by drawing so
    draws = torch.Generator().manual_seed(0)
    half = 0.5 * torch.rand(200_000, 1, generator=draws).double().sqrt()
    centre = torch.rand(200_000, 2, generator=draws).double()
    sides = (centre + half).clamp(max=1) - (centre - half).clamp(min=0)
    wanted = sides.prod(1)
    mix, images = Mixing(cutmix=1.0), torch.zeros(5, 1, 100, 100)
    areas = 1 - torch.tensor([share(mix(images, CLASSES, n)[1]) for n in range(3000)]).double()
    # five standard errors, and a pixel of a hundred for whole pixels
    assert abs(areas.mean() - wanted.mean()) < 5 * wanted.std() / 3000**0.5 + 0.01


def test_both_take_turns_by_chance() -> None:
    images, mix = some_images(), Mixing(mixup=1.0, cutmix=1.0)
    boxes = 0
    for draw in range(200):
        mixed, _ = mix(images, CLASSES, draw)
        boxes += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert 65 < boxes < 135  # five standard deviations of 200 coins


def test_the_key_alone_decides() -> None:
    images, mix = some_images(), Mixing(mixup=1.0)
    before = torch.get_rng_state()
    first = mix(images, CLASSES, "mix", 0, 1)
    torch.rand(3)
    assert torch.equal(mix(images, CLASSES, "mix", 0, 1)[1], first[1])
    assert not torch.equal(mix(images, CLASSES, "mix", 0, 2)[1], first[1])
    torch.set_rng_state(before)
    mix(images, CLASSES, "mix", 0, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("argument", [{"mixup": -1.0}, {"cutmix": float("nan")}])
def test_what_is_no_alpha_is_refused(argument: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(argument))):
        ShapesDataModule(num_images=40, num_test=20, **argument)


def test_batches_of_a_place_and_process_are_mixed_by_their_own_draws() -> None:
    data = ShapesDataModule(num_images=40, num_test=20, batch_size=9, mixup=1.0)
    batch = next(iter(data.train_dataloader()))
    L.seed_everything(3, verbose=False)
    places = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]
    found = [data.prepare_training(batch, *place) for place in places]
    shares = [one.targets.amax(1).min() for one in found]  # type: ignore[union-attr]
    assert len({value.item() for value in shares}) == 4
    again = data.prepare_training(batch, 0, 1, 0)
    assert torch.equal(again.images, found[1].images)
    assert torch.equal(again.labels, batch.labels)
    assert again.images.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_and_runs_without_it_know_no_targets() -> None:
    data = ShapesDataModule(num_images=40, num_test=20, mixup=1.0)
    batch: Batch = next(iter(data.val_dataloader()))
    assert data.on_after_batch_transfer(batch, 0).targets is None
    plain = ShapesDataModule(num_images=40, num_test=20)
    assert plain.prepare_training(batch, 0, 0).targets is None


def test_a_resumed_run_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes_exactly(RECIPE, tmp_path, monkeypatch, 6)
