"""How much of an epoch a GPU works, and how much it waits for its next order."""

from collections.abc import Iterable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile
from typing_extensions import override

from cnn_lightning.commands.benchmarking.bare_loop import BareLoop
from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.commands.benchmarking.timing import clock


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of some spans of time lasts.

    Args:
        spans: Begin and end of each, in any order and unit.

    Returns:
        In the same unit.

    Example:
        >>> covered([(5, 7), (0, 2), (1, 3)])
        5.0
    """
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


class WorkingTime:
    """Profiles a GPU from `start` to `stop`.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._profile: profile | None = None
        self._began = 0.0

    def start(self) -> None:
        """Begin, once the GPU has done all that it has yet to do."""
        self._profile = profile(activities=[ProfilerActivity.CUDA])
        self._profile.start()
        self._began = clock(self.device)

    def stop(self) -> float:
        """The share of the time since `start` in which a kernel or a copy ran: 0..1."""
        assert self._profile is not None  # noqa: S101  # since `start`
        taken = clock(self.device) - self._began
        self._profile.stop()
        return covered(device_spans(self._profile)) / 1e6 / taken


def device_spans(profiled: profile) -> list[tuple[float, float]]:
    """Begin and end in microseconds of all that ran on a GPU."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()  # type: ignore[no-untyped-call]  # torch's
        # named stretches of the program last until their last kernel ends, pauses included
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]


class Busyness(Callback):
    """Profiles each epoch's training steps, and after them those of a bare loop.

    The first epoch of both warms up.

    Attributes:
        loop: The bare loop, once training has begun.
    """

    def __init__(self) -> None:
        self.loop: BareLoop | None = None
        self._working: WorkingTime | None = None
        self._is_open = False
        self._shares: list[float] = []
        self._bare_shares: list[float] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.loop = BareLoop.beside(trainer, pl_module)
        self._working = WorkingTime(trainer.strategy.root_device)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._working is not None  # noqa: S101  # since on_train_start
        self._is_open = True
        self._working.start()

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        assert self.loop is not None  # noqa: S101  # since on_train_start
        assert self._working is not None  # noqa: S101
        self._working.start()
        for _ in self.loop.train_epoch(trainer.current_epoch):
            pass
        self._bare_shares.append(self._working.stop())

    def _stop(self) -> None:
        if self._is_open and self._working is not None:
            self._is_open = False
            self._shares.append(self._working.stop())

    def measurement(self) -> Measurement:
        """The share of each epoch but the first, beside the bare loop's."""
        return Measurement(
            "busyness",
            "time of the training steps in which the GPU works",
            "of the time",
            self._shares[1:],
            "a bare loop",
            self._bare_shares[1:],
        )
