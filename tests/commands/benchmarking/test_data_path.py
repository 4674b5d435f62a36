"""What the data path is measured against does the same to the same images."""

import pytest
import torch
from torch import Tensor
from torchvision import transforms

from cnn_lightning.augment import Augmentation, flip_horizontally, pad_and_crop
from cnn_lightning.commands.benchmarking.data_path import (
    PILImages,
    measure_data_path,
    usual_transforms,
)
from cnn_lightning.data import ImageDataModule, MNISTDataModule, ShapesDataModule
from cnn_lightning.data.base import Augment
from cnn_lightning.errors import UserError
from cnn_lightning.preprocessing import Preprocessing

# one 8-bit step is 1/255; float32 of both is off by far less
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def shapes(augment: Augment = "none", size: int = 32) -> ImageDataModule:
    return ShapesDataModule(
        num_images=60, num_test=20, augment=augment, batch_size=16, image_size=size
    )


def by_torchvision(data: ImageDataModule, images: Tensor) -> Tensor:
    labels = torch.zeros(len(images), dtype=torch.int64)
    dataset = PILImages(images, labels, usual_transforms(data))
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


@pytest.mark.parametrize("data", [shapes(), MNISTDataModule(sample=True)], ids=["colour", "grey"])
def test_unchanged_images_are_ours(data: ImageDataModule) -> None:
    images = data.load("train")[0][:20]
    torch.testing.assert_close(by_torchvision(data, images), data.prepare(images), **CLOSE)


def test_resized_images_are_ours() -> None:
    data = shapes()
    data.preprocessing = Preprocessing(tuple(data.mean), tuple(data.std), 48)
    images = data.load("train")[0][:20]
    theirs, ours = by_torchvision(data, images), data.prepare(images)
    # PIL rounds to 8 bits after the width and after the height
    assert (theirs - ours).abs().max() < 2 / 255 / min(data.std)


@pytest.mark.parametrize(
    ("augment", "padding", "flips"), [("flip", 0, 2), ("crop", 2, 1), ("crop_flip", 4, 2)]
)
def test_changed_images_are_of_those_that_ours_can_be(
    augment: Augment, padding: int, flips: int
) -> None:
    data = shapes(augment, 16)
    image = data.load("train")[0][:1]
    offsets = torch.cartesian_prod(*[torch.arange(2 * padding + 1)] * 2)
    possible = pad_and_crop(image.repeat(len(offsets), 1, 1, 1), offsets, padding)
    if flips == 2:
        mirrored = flip_horizontally(possible, torch.ones(len(possible), dtype=torch.bool))
        possible = torch.cat([possible, mirrored])
    prepared = data.prepare(possible).flatten(1)
    torch.manual_seed(0)
    drawn = by_torchvision(data, image.repeat(40 * len(possible), 1, 1, 1)).flatten(1)
    distances, places = torch.cdist(drawn, prepared, p=float("inf")).min(1)
    assert distances.max() < 1e-5
    # each as often as the others: 40 times, give or take six standard deviations
    counts = torch.bincount(places, minlength=len(possible))
    assert (counts - 40).abs().max() < 6 * 40**0.5


def test_both_sides_see_all_images_and_each_repeat_counts() -> None:
    data = shapes("crop_flip")
    found = measure_data_path(data, torch.device("cpu"), repeats=2, steps=0, workers=0)
    assert len(found.values) == len(found.reference_values) == 2
    assert found.ratio is not None
    assert "crop_flip" in found.what


def test_what_torchvision_cannot_do_is_refused() -> None:
    class Inverted(ShapesDataModule):
        def augment_images(self, images: Tensor, draws: torch.Generator) -> Tensor:
            return 255 - images

    class Flipped(ShapesDataModule):
        def augmentation(self) -> Augmentation:
            return Augmentation("random")

    for kind in (Inverted, Flipped):
        with pytest.raises(UserError, match=kind.__name__):
            usual_transforms(kind(num_images=60, num_test=20))


def test_padding_is_the_one_that_recipes_are_known_by() -> None:
    crop = usual_transforms(shapes("crop_flip")).transforms[0]
    assert isinstance(crop, transforms.RandomCrop)
    assert (crop.size, crop.padding, crop.fill) == ((32, 32), 4, 0)
