"""Training as one would write it by hand: the reference for the speed of the Trainer."""

from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from itertools import islice
from typing import Self

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from cnn_lightning.callbacks import Compilation
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.losses import training_loss
from cnn_lightning.classifiers.optimization import build_optimizer, build_schedule, run_length
from cnn_lightning.classifiers.window import scale_of_part
from cnn_lightning.data import Batch, ImageDataModule
from cnn_lightning.errors import UserError

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class BareLoop:
    """A loop over a copy of a classifier's network, without all that training can do without.

    The same batches, augmentation, precision, optimizer and schedule as the Trainer's, in the same
    order, compiled if its network is, so that without dropout it ends with the same weights. It
    logs nothing, counts no correct answers, checks no loss, writes no file, knows of no callback.

    Args:
        trainer: What it is compared with; its settings are taken over.
        classifier: Whose network is copied, as it is before the first step and compilation.
        data: Where the batches come from.

    Raises:
        UserError: The trainer's precision is one that this loop does not know.
    """

    def __init__(
        self, trainer: Trainer, classifier: ImageClassifier, data: ImageDataModule
    ) -> None:
        self.data = data
        self.device = trainer.strategy.root_device
        self.network = deepcopy(classifier.network)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's own
            if isinstance(callback, Compilation):
                callback.compile(self.network)
        self.frozen = classifier.freeze_part is not None
        self.label_smoothing = classifier.label_smoothing
        self.class_weights = classifier.loss_weights
        self.num_batches = int(trainer.num_training_batches)
        self.accumulated = trainer.accumulate_grad_batches
        self.clip_value = trainer.gradient_clip_val
        self.clip_by_value = trainer.gradient_clip_algorithm == "value"
        self.by_step = classifier.schedule_interval == "step"
        self.optimizer = build_optimizer(classifier.optimizer, self.network)
        length = run_length(trainer, by_step=self.by_step)
        self.schedule = build_schedule(classifier.schedule, self.optimizer, length)
        self.autocast = find_autocast(trainer.precision)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.autocast == torch.float16)

    @classmethod
    def beside(cls, trainer: Trainer, module: LightningModule) -> Self:
        """The loop to compare a training with that is about to begin, and was built by `fit`."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        assert isinstance(module, ImageClassifier)  # noqa: S101  # TrainingCLI builds no other
        assert isinstance(data, ImageDataModule)  # noqa: S101
        return cls(trainer, module, data)

    def train_epoch(self, epoch: int, turn: int = 0) -> Iterator[int]:
        """Run one epoch, a turn of it whenever the next value is asked for.

        Args:
            epoch: Counted from 0.
            turn: Steps of a turn; 0 takes the whole epoch.

        Yields:
            How many images the turn trained on.
        """
        num_images = 0
        loader = self.data.training_loader(epoch)
        batches = islice(loader, self.num_batches)
        for number, read in enumerate(batches, 1):
            batch = self.data.prepare_training(read.to(self.device), epoch, number - 1)
            with self._autocast():
                loss = self._loss(batch)
            if (number - 1) % self.accumulated == 0:
                self.optimizer.zero_grad()
            if self.accumulated > 1:
                scale = scale_of_part(loader, number - 1, self.accumulated, self.num_batches)
                loss = (loss if scale == 1 else loss * scale) / self.accumulated
            torch.autograd.backward(self.scaler.scale(loss))
            is_last = number == self.num_batches
            if number % self.accumulated == 0 or is_last:
                self._step()
            if is_last and not self.by_step:
                self.schedule.step()
            num_images += len(batch.labels)
            if is_last or (turn and number % turn == 0):
                yield num_images
                num_images = 0

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def _loss(self, batch: Batch) -> Tensor:
        auxiliary: list[Tensor] = []
        if batch.is_features:
            logits = self.network.head(batch.images)
        elif self.frozen or not self.network.auxiliary_weight:
            logits = self.network(batch.images)
        else:
            logits, auxiliary = self.network.auxiliary_logits(batch.images)
        return training_loss(
            logits,
            auxiliary,
            batch.labels if batch.targets is None else batch.targets,
            auxiliary_weight=self.network.auxiliary_weight,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
        )

    def _step(self) -> None:
        if self.clip_value:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            if self.clip_by_value:
                torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
            else:
                torch.nn.utils.clip_grad_norm_(parameters, self.clip_value)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.by_step:
            self.schedule.step()


def find_autocast(precision: object) -> torch.dtype | None:
    """What layers are to compute in under a Trainer's precision; `None` if in their own.

    Raises:
        UserError: The bare loop does not know it.
    """
    if str(precision) not in _AUTOCAST:
        raise UserError(
            f"there is no loop to compare precision {precision} with",
            f"use one of {', '.join(_AUTOCAST)}",
        )
    return _AUTOCAST[str(precision)]
