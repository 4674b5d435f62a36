"""How long a training step takes with memory kept for it, and with memory new at every step."""

from contextlib import nullcontext

import torch

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.commands.benchmarking.layouts import LAYOUTS, first_step, train_step
from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.commands.benchmarking.timing import clock
from cnn_lightning.commands.memory import memory_kept
from cnn_lightning.data import ImageDataModule


def measure_memory(
    classifier: ImageClassifier,
    data: ImageDataModule,
    device: torch.device,
    *,
    dtype: torch.dtype | None,
    repeats: int,
) -> Measurement | None:
    """Time steps on the first training batch, by turns with memory kept and given back.

    Each timed step follows one that is not: memory that is to be kept has to be had first.

    Args:
        classifier: Whose network is copied.
        data: Set up, and told how its images are prepared.
        device: Where steps are made.
        dtype: What layers compute in; `None` = their own.
        repeats: Timed steps of each.

    Returns:
        `None` where memory cannot be kept.
    """
    network, batch = first_step(classifier, data, device)
    kind = LAYOUTS["channels_last" if classifier.channels_last else "contiguous"]
    network = network.train().to(memory_format=kind)
    images = batch.images.contiguous(memory_format=kind)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for repeat in range(repeats + 1):
        for keep in seconds:
            with memory_kept(device, keep=keep) as kept:
                if kept != keep:
                    return None
                for is_timed in (False, True):
                    began = clock(device)
                    with torch.autocast(device.type, dtype) if dtype else nullcontext():
                        train_step(network, images, batch.labels)
                    if is_timed and repeat > 0:
                        seconds[keep].append(clock(device) - began)
    return Measurement(
        "memory",
        f"step of {type(network).__name__} on {'×'.join(map(str, images.shape))}, memory kept",
        "s",
        seconds[True],
        "given back to the system",
        seconds[False],
    )
