"""How many training images a second go through the whole loop."""

import time
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from cnn_lightning.classifiers.window import ends_step, is_logged, tell


class Throughput(L.Callback):
    """Logs `images_per_second`: training images of all processes over the time between loggings.

    Validation, checkpoints and pictures at an epoch's end do not count. What a GPU has yet to do
    is waited for at each logging.
    """

    def __init__(self) -> None:
        self._images = 0
        self._since = 0.0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()  # a resume in mid-epoch starts no epoch

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def _restart(self) -> None:
        self._images = 0
        self._since = time.monotonic()

    @override
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._images += batch.labels.shape[0]
        is_due = ends_step(trainer, batch_idx) and is_logged(trainer, trainer.global_step)
        if is_due or trainer.is_last_batch:
            if (device := trainer.strategy.root_device).type != "cpu":
                torch.accelerator.synchronize(device)
            images = self._images * trainer.world_size
            speed = images / max(time.monotonic() - self._since, 1e-9)
            tell(trainer, {"images_per_second": speed})
            for logger in trainer.loggers:
                logger.log_metrics({"images_per_second": speed}, trainer.global_step - 1)
            self._restart()
