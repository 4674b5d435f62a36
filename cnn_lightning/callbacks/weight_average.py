"""An average of the weights over the steps of the training, which validation sees."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import override

from cnn_lightning.console import say
from cnn_lightning.errors import UserError


class WeightAverage(WeightAveraging):
    """Exponential moving average of the weights (Polyak & Juditsky 1992, doi:10.1137/0330046).

    After each update, average ← decay · average + (1 - decay) · weights; the first update copies
    the weights. Means and variances of batch norm are averaged alike, its counts are copied.
    Validation sees the average, and so do checkpoints, `test`, `predict` and the end of the
    training; the weights that are trained stand in a checkpoint beside it, for a resume. Until the
    first update, the average is the weights. Lightning's callback does the work.

    Args:
        decay: From 0 to below 1, such as 0.999: about 1 / (1 - decay) updates count; 0 = off.
        every_n_steps: Optimizer steps from one update to the next.
        start_step: Optimizer steps before the first update.

    Raises:
        UserError: A number is out of its range.
    """

    def __init__(self, decay: float = 0.0, every_n_steps: int = 1, start_step: int = 0) -> None:
        if not 0 <= decay < 1 or every_n_steps < 1 or start_step < 0:
            raise UserError(
                f"weight_average: decay {decay}, every_n_steps {every_n_steps}, start_step "
                f"{start_step}",
                "give a decay from 0 to below 1, at least 1 step between, and none or more before",
            )
        super().__init__()
        self.decay = decay
        self.every_n_steps = every_n_steps
        self.start_step = start_step
        self._is_swapped = False
        if not decay:
            self.on_train_batch_end = None  # type: ignore[method-assign, assignment]  # passed over

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if step_idx is None:
            return False
        waited = step_idx - self.start_step
        return waited >= 0 and waited % self.every_n_steps == 0

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not self.decay:
            return
        # the parent would leave the average on the CPU, where the model still is
        self._device = trainer.strategy.root_device
        # only now: it cannot be pickled, and some strategies send the callback to new processes
        self._kwargs["multi_avg_fn"] = get_ema_multi_avg_fn(self.decay)  # type: ignore[no-untyped-call]  # torch's
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            # asked at every step; on a GPU the program would wait for the answer
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if self._average_model is None:
            return
        before = self._latest_update_step
        super().on_train_batch_end(trainer, pl_module, *args)
        if self._latest_update_step == before:
            return
        buffers = self._average_model.module.buffers()
        for average, own in zip(buffers, pl_module.buffers(), strict=True):
            if not own.is_floating_point():
                average.copy_(own)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._average_model is not None:
            self._follow(pl_module)
            super().on_train_end(trainer, pl_module)

    @override
    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.swap(pl_module)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.swap(pl_module)

    @override
    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if self._is_swapped:
            self.swap(pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() if self.decay else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.decay:
            super().load_state_dict(state_dict)

    @override
    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            self._follow(pl_module)
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    @override
    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        holds_average = "current_model_state" in checkpoint
        if self._average_model is not None and holds_average:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
        elif self._average_model is not None:
            say("the checkpoint holds no average of weights: one begins now")
        elif holds_average:
            say("weights are no longer averaged: training goes on from those that were trained")
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def swap(self, pl_module: L.LightningModule) -> None:
        """Exchange the weights of the model and their average, if there is one."""
        if self._average_model is not None:
            self._follow(pl_module)
            self._swap_models(pl_module)
            self._is_swapped = not self._is_swapped

    def _follow(self, pl_module: L.LightningModule) -> None:
        """Before the first update, let the average be the weights: see Lightning issue 21724."""
        if self._average_model is not None and self._average_model.n_averaged == 0:
            self._average_model.module.load_state_dict(pl_module.state_dict())


@contextmanager
def averaged_weights(trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[None]:
    """Give the model the weights that validation sees, for as long as the block lasts."""
    averages = [
        one
        for one in trainer.callbacks  # type: ignore[attr-defined]  # Lightning's own
        if isinstance(one, WeightAverage)
    ]
    for average in averages:
        average.swap(pl_module)
    try:
        yield
    finally:
        for average in averages:
            average.swap(pl_module)
