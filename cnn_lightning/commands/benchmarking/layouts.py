"""How long a training step takes in each of the two orders of a batch's values in memory."""

import copy
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.commands.benchmarking.timing import clock
from cnn_lightning.data import Batch, ImageDataModule
from cnn_lightning.networks.base import Network

LAYOUTS = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


def measure_layouts(
    classifier: ImageClassifier,
    data: ImageDataModule,
    device: torch.device,
    *,
    dtype: torch.dtype | None,
    repeats: int,
) -> Measurement:
    """Time steps on the first training batch: the layout a run would use, beside the other.

    Args:
        classifier: Whose network is copied.
        data: Set up, and told how its images are prepared.
        device: Where steps are made.
        dtype: What layers compute in; `None` = their own.
        repeats: Timed steps of each layout.
    """
    network, batch = first_step(classifier, data, device)
    found = time_layouts(network, batch.images, batch.labels, dtype=dtype, repeats=repeats)
    used, other = LAYOUTS if classifier.channels_last else reversed(LAYOUTS)
    shape = "×".join(map(str, batch.images.shape))
    return Measurement(
        "layout",
        f"step of {type(network).__name__} on {shape}, {used}",
        "s",
        found[used],
        other,
        found[other],
    )


def first_step(
    classifier: ImageClassifier, data: ImageDataModule, device: torch.device
) -> tuple[Network, Batch]:
    """A copy of the network, and the first training batch as it takes it, both on a device."""
    read = next(iter(data.training_loader(0)))
    batch = data.prepare_training(read.to(device), 0, 0)
    return copy.deepcopy(classifier.network).to(device), batch


def time_layouts(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    dtype: torch.dtype | None = None,
    repeats: int = 5,
) -> dict[str, list[float]]:
    """Time forward pass, backward pass and a step of SGD, the layouts in turn.

    In turn, so that a machine that slows down slows both. Which layout a network trains in by
    itself, its `channels_last` says.

    Args:
        network: Left as it is: copies are trained.
        images: N×C×H×W float, as the network takes them, on its device.
        labels: N int64.
        dtype: What layers compute in, by autocast; `None` = their own.
        repeats: Timed steps of each layout, after one that is not timed.

    Returns:
        Seconds of each step for `channels_last` and `contiguous`.
    """
    copies = {
        name: copy.deepcopy(network).train().to(memory_format=kind)
        for name, kind in LAYOUTS.items()
    }
    laid_out = {name: images.contiguous(memory_format=kind) for name, kind in LAYOUTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for repeat in range(repeats + 1):
        for name, one in copies.items():
            began = clock(images.device)
            with torch.autocast(images.device.type, dtype) if dtype else nullcontext():
                train_step(one, laid_out[name], labels)
            if repeat > 0:
                seconds[name].append(clock(images.device) - began)
    return seconds


def train_step(network: Network, images: Tensor, labels: Tensor) -> None:
    """One step of SGD on the loss that the network is trained with, auxiliary heads included."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    logits, auxiliary = network.auxiliary_logits(images)
    total = F.cross_entropy(logits, labels)
    for more in auxiliary:
        total = total + network.auxiliary_weight * F.cross_entropy(more, labels)
    total.backward()  # type: ignore[no-untyped-call]  # torch's
    optimizer.step()
    optimizer.zero_grad()
