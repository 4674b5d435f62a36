"""How long a training step takes with memory kept for it, and with what is freed given back."""

from contextlib import nullcontext

import torch

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.commands.benchmarking.layouts import LAYOUTS, first_step, train_step
from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.commands.benchmarking.timing import clock
from cnn_lightning.data import ImageDataModule
from cnn_lightning.memory import memory_kept


def measure_memory(
    classifier: ImageClassifier,
    data: ImageDataModule,
    device: torch.device,
    *,
    dtype: torch.dtype | None,
    repeats: int,
) -> Measurement | None:
    """Time steps on the first training batch, by turns with freed memory kept and given back.

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

    def time_step() -> float:
        began = clock(device)
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            train_step(network, images, batch.labels)
        return clock(device) - began

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for repeat in range(repeats + 1):
        for keep, found in seconds.items():
            with memory_kept(device, keep=keep) as kept:
                if kept != keep:
                    return None
                time_step()
                taken = time_step()
            if repeat > 0:
                found.append(taken)
    return Measurement(
        "memory",
        f"step of {type(network).__name__} on {'×'.join(map(str, images.shape))}, memory kept",
        "s",
        seconds[True],
        "given back to the system",
        seconds[False],
    )
