"""How long a training step takes in each of the two orders of a batch's values in memory."""

import copy
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from cnn_lightning.networks.base import Network

LAYOUTS = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


def time_layouts(
    network: Network, images: Tensor, labels: Tensor, *, repeats: int = 5
) -> dict[str, list[float]]:
    """Time forward pass, backward pass and a step of SGD, the layouts in turn.

    In turn, so that a machine that slows down slows both. Which layout a network trains in by
    itself, its `channels_last` says.

    Args:
        network: Left as it is: copies are trained.
        images: N×C×H×W float, as the network takes them, on its device.
        labels: N int64.
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
            started = time.perf_counter()
            train_step(one, laid_out[name], labels)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            if repeat > 0:
                seconds[name].append(time.perf_counter() - started)
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
