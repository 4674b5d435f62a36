"""Augmentation by the arguments of a data module."""

from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import assert_resumes_exactly

from cnn_lightning.augment import Augmentation
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.errors import UserError

RECIPE = """
data:
  class_path: ShapesDataModule
  init_args:
    num_images: 120
    num_test: 20
    batch_size: 30
    augment: crop_alternating_flip
    crop_padding: 2
    crop_border: reflect
model: LeNet
trainer: {max_epochs: 3}
"""


def shapes(**kwargs: Any) -> ShapesDataModule:
    return ShapesDataModule(num_images=100, num_test=20, batch_size=30, **kwargs)


@pytest.mark.parametrize(
    ("augment", "wanted"),
    [
        ("none", Augmentation()),
        ("flip", Augmentation("random")),
        ("crop", Augmentation(padding=2)),
        ("crop_flip", Augmentation("random", padding=4)),
        ("alternating_flip", Augmentation("alternating")),
        ("crop_alternating_flip", Augmentation("alternating", padding=4)),
    ],
)
def test_a_name_says_what_is_done(augment: str, wanted: Augmentation) -> None:
    assert shapes(augment=augment).augmentation() == wanted


def test_padding_and_border_are_chosen() -> None:
    data = shapes(augment="crop_flip", crop_padding=2, crop_border="reflect")
    assert data.augmentation() == Augmentation("random", 2, "reflect")
    assert shapes(augment="crop", crop_border="reflect").augmentation().padding == 2


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"augment": "flip", "crop_padding": 2}, "augment flip crops nothing"),
        ({"augment": "none", "crop_border": "reflect"}, "augment none crops nothing"),
        ({"augment": "crop", "crop_padding": 0}, "crop_padding is 0"),
        ({"augment": "crop", "crop_padding": 32}, "crop_padding is 32"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        shapes(**arguments).setup("fit")


def test_every_image_is_flipped_by_turns_whatever_the_order_of_the_epoch() -> None:
    data = shapes(augment="alternating_flip")
    stored = data.load("train")[0]
    seen = []
    for epoch in range(4):
        images = torch.zeros(100, 3, 32, 32)
        loader = data.train_dataloader()
        order = torch.randperm(len(loader.indices)) if epoch else torch.arange(len(loader.indices))
        for number, chosen in enumerate(loader.indices[order].split(30)):
            batch = next(iter(loader))._replace(images=stored[chosen], indices=chosen)
            images[chosen] = data.prepare_training(batch, epoch, number).images
        seen.append(images[loader.indices])
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert torch.equal(seen[0], seen[1].flip(3))
    flipped = (seen[0] != data.prepare(stored[loader.indices])).flatten(1).any(1)
    assert 0.2 < flipped.double().mean() < 0.8


def test_a_resumed_run_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes_exactly(RECIPE, tmp_path, monkeypatch, 6)
