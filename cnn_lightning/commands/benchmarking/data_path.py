"""The data path alone, against torchvision's usual one: PIL images and worker processes."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from typing_extensions import override

from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.commands.benchmarking.timing import clock
from cnn_lightning.data import ImageDataModule
from cnn_lightning.data.overriding import CHANGING_TRAINING, overridden
from cnn_lightning.errors import UserError
from cnn_lightning.preprocessing import Preprocessing

# what torchvision's users write for each of our augmentations
_AUGMENTATIONS: dict[str, Callable[[tuple[int, int]], list[Any]]] = {
    "none": lambda size: [],
    "flip": lambda size: [transforms.RandomHorizontalFlip()],
    "crop": lambda size: [transforms.RandomCrop(size, padding=2)],
    "crop_flip": lambda size: [
        transforms.RandomCrop(size, padding=4),
        transforms.RandomHorizontalFlip(),
    ],
}


class PILImages(Dataset[tuple[Tensor, int]]):
    """Images held as an array, of which each is made a PIL image and transformed when asked for.

    As torchvision's CIFAR10 and MNIST are.

    Args:
        images: N×C×H×W uint8, C being 1 or 3.
        labels: N int64.
        transform: A PIL image to a tensor.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]
    ) -> None:
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.pixels = pixels[..., 0] if pixels.shape[3] == 1 else pixels
        self.labels: list[int] = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def usual_transforms(data: ImageDataModule) -> transforms.Compose:
    """The transforms of torchvision that do what a data module does to training images.

    Raises:
        UserError: There are none.
    """
    changed = overridden(data, (*CHANGING_TRAINING, "prepare"))
    if changed or data.augment not in _AUGMENTATIONS or data.num_channels not in (1, 3):
        kind = type(data).__name__
        raise UserError(
            f"torchvision's transforms do not do what {kind} (augment: {data.augment}) "
            "does to images, so there is nothing to compare it with",
            "choose other --parts, or --data.augment crop_flip",
        )
    height, width = data.image_shape[1:]
    preparation = data.preprocessing or Preprocessing(data.mean, data.std)
    steps = _AUGMENTATIONS[data.augment]((height, width))
    if preparation.size is not None:
        steps.append(transforms.Resize((preparation.size, preparation.size)))
    steps += [transforms.ToTensor(), transforms.Normalize(preparation.mean, preparation.std)]
    return transforms.Compose(steps)


def measure_data_path(
    data: ImageDataModule, device: torch.device, *, repeats: int, steps: int, workers: int
) -> Measurement:
    """Time epochs of training batches, ready for a step, from both by turns; one each to warm up.

    Args:
        data: Set up, and told how its images are prepared.
        device: Where batches go.
        repeats: Epochs of each.
        steps: Batches of an epoch; 0 = all.
        workers: Worker processes of torchvision's loader.

    Raises:
        UserError: There is nothing to compare with.
    """
    transform = usual_transforms(data)
    images, labels = data.load("train")
    chosen = data.stage_indices("train")
    if steps:
        chosen = chosen[: steps * data.batch_size]
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        PILImages(images[chosen], labels[chosen], transform),
        batch_size=data.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=on_gpu,
    )

    def run_ours(epoch: int) -> int:
        count = 0
        batches = islice(data.training_loader(epoch), steps or None)
        for number, read in enumerate(batches):
            count += len(data.prepare_training(read.to(device), epoch, number).labels)
        return count

    def run_usual(epoch: int) -> int:
        count = 0
        for prepared, answers in loader:
            prepared.to(device, non_blocking=on_gpu)
            count += len(answers.to(device, non_blocking=on_gpu))
        return count

    speeds: tuple[list[float], list[float]] = ([], [])
    for epoch in range(repeats + 1):
        # by turns first and second, so that a machine that slows down slows both
        for which in (0, 1) if epoch % 2 else (1, 0):
            began = clock(device)
            count = (run_ours, run_usual)[which](epoch)
            speed = count / (clock(device) - began)
            speeds[which].append(speed)
    size = data.preprocessing.size if data.preprocessing else None
    shape = "×".join(map(str, data.image_shape)) + (f" to {size}×{size}" if size else "")
    return Measurement(
        "data",
        f"training images of {shape}, augment: {data.augment}, batches of {data.batch_size}",
        "images/s",
        speeds[0][1:],
        f"torchvision, PIL, {workers} workers",
        speeds[1][1:],
    )
