"""Epochs with a frozen backbone: the first computes features, the others reuse them."""

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from cnn_lightning.commands.benchmarking.report import Measurement


class WholeEpochs(Callback):
    """Times epochs from one's start to the next one's, with validation, checkpoints and all.

    The first counts from where `FeatureCache` begins to compute.
    """

    def __init__(self) -> None:
        self._marks: list[float] = []

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._marks = [time.perf_counter()]

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch > 0:
            self._marks.append(time.perf_counter())

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._marks.append(time.perf_counter())

    def measurement(self) -> Measurement:
        """Later epochs beside the first."""
        pairs = zip(self._marks[:-1], self._marks[1:], strict=True)
        first, *later = (end - begin for begin, end in pairs)
        return Measurement(
            "features",
            "later epochs with a frozen backbone",
            "s",
            later,
            "the first, in which features are computed",
            [first],
        )
