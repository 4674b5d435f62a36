"""What a run shows of itself while it trains: a bar on a terminal, a line per epoch elsewhere."""

import shutil
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from torch import Tensor
from typing_extensions import override

from cnn_lightning.console import say

_DRAWN_PER_S = 10
# a terminal is not wide enough for these beside a bar
_IN_LINE_ALONE = ("train/accuracy", "val/loss", "val/accuracy")
_WIDE = 120  # columns that hold loss and images per second beside the bar


class Bar(RichProgressBar):
    """A bar with the loss and, on a wide terminal, images per second; epochs' lines above it.

    Drawn ten times a second: to gather its numbers and draw it at every step, as its parent does,
    takes a good part of a small network's time.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=_DRAWN_PER_S)
        self._drawn_at = 0.0
        self._lines = EpochLines()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._lines.on_train_start(trainer)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._lines.on_train_epoch_start(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_enabled:
            self._lines.on_train_epoch_end(trainer, pl_module)

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        # Lightning counts from 0, and the lines, pictures and tables from 1
        told = f"epoch {current_epoch + 1}{_of_all(self.trainer)}"
        return told.ljust(len(self.validation_description))

    @override
    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        now = time.monotonic()
        if now - self._drawn_at >= 1 / _DRAWN_PER_S or trainer.is_last_batch:
            self._drawn_at = now
            super().on_train_batch_end(trainer, *args)

    @override
    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the run folder is named at start and end
        is_told = metrics.pop("images_per_second", None) is not None
        if is_told and shutil.get_terminal_size().columns >= _WIDE:
            speed = float(trainer.callback_metrics["images_per_second"])
            metrics["images/s"] = f"{speed:,.0f}"
        for name in _IN_LINE_ALONE:
            metrics.pop(name, None)
        return metrics


class EpochLines(ProgressBar):
    """A line per epoch, for files and batch jobs, where a bar would write thousands.

    It tells what was logged in the epoch: not all, where steps or time cut it off.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._before: dict[str, Tensor] = {}

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._started = time.monotonic()  # a resume in mid-epoch starts no epoch

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._started = time.monotonic()
        self._before = dict(trainer.callback_metrics)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        known = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if value is not self._before.get(name)  # logged anew, it is another tensor
        }
        told = [f"epoch {trainer.current_epoch + 1}{_of_all(trainer)}"]
        told.append(f"step {trainer.global_step}")
        told += [
            f"{name} {float(known[name]):.4f}"
            for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
            if name in known
        ]
        if "images_per_second" in known:
            told.append(f"{float(known['images_per_second']):,.0f} images/s")
        told.append(f"{time.monotonic() - self._started:.1f} s")
        say("  ".join(told))


def _of_all(trainer: L.Trainer) -> str:
    return "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
