"""Ends a run whose numbers went bad, before they reach weights that are kept."""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.classifiers.window import ends_step, is_logged
from cnn_lightning.errors import DamagedFileError, SharedRunError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.runs import RunFolder


class BadNumbers(L.Callback):
    """Stops the run when a loss is NaN or infinite; such weights never reach a checkpoint.

    On a CPU the training loss is checked before the gradients of its step are taken. Elsewhere it
    is checked when metrics are logged: reading every loss would make the device wait. The
    validation loss is checked too, and the weights before a checkpoint of them is written.

    Args:
        stop: `false` turns it off.

    Raises:
        SharedRunError: A number is bad.
    """

    def __init__(self, stop: bool = True) -> None:  # noqa: FBT001, FBT002  # the parser's flag
        super().__init__()
        self.stop = stop
        self.folder: RunFolder | None = None
        self._sum: Tensor | None = None  # of the losses since they were checked, on the device
        self._since = 0  # the step of the first of them

    @override
    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        if not self.stop:
            return
        if _is_quick_to_read(loss):
            self._check_training(trainer, loss, "")
        elif self._sum is None:
            self._sum, self._since = loss.detach(), trainer.global_step
        else:
            self._sum = self._sum + loss.detach()

    @override
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._sum is None:
            return
        is_due = ends_step(trainer, batch_idx) and is_logged(trainer, trainer.global_step)
        if is_due or trainer.is_last_batch:
            steps = trainer.global_step - self._since
            self._check_training(trainer, self._sum, f" in the last {steps} step(s), found")
            self._sum = None

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if self.stop and loss is not None and not math.isfinite(loss):
            self._fail(trainer, f"the validation loss is {float(loss)}")

    @override
    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not self.stop:
            return
        for name, value in checkpoint["state_dict"].items():
            if not _is_finite(value):
                self._fail(trainer, f"{name} is no longer finite, found")

    def _check_training(self, trainer: L.Trainer, loss: Tensor, when: str) -> None:
        value = loss.item()
        bad = not math.isfinite(value)
        if trainer.world_size > 1:
            # all processes must leave together, or the others would wait for this one
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        if bad:
            found = f"is {value}" if not math.isfinite(value) else "of another process is bad"
            self._fail(trainer, f"the training loss {found}{when}")

    def _fail(self, trainer: L.Trainer, what: str) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rates = ", ".join(dict.fromkeys(f"{group['lr']:g}" for group in groups))
        lower = min(group.get("initial_lr", group["lr"]) for group in groups) / 10
        raise SharedRunError(
            f"{what} at step {trainer.global_step} (epoch {trainer.current_epoch + 1}, "
            f"learning rate {rates})",
            f"{self._last_good_state()} with a lower rate, or with clipped gradients: "
            f"--optimizer.init_args.lr {lower:g}, --trainer.gradient_clip_val 1",
        )

    def _last_good_state(self) -> str:
        """How to begin again: from the newest whole checkpoint of the run, if it has one."""
        for path in self.folder.checkpoints_to_resume() if self.folder is not None else ():
            try:
                step = load_checkpoint(path)["global_step"]
            except DamagedFileError:
                continue
            return f"the last good state is {path}, step {step}: go on from it (--ckpt_path)"
        return "there is no good state yet: start again"


def _is_finite(value: Tensor) -> bool:
    """Whether no value is NaN or infinite, by the extremes: without a copy of a large tensor."""
    if not value.is_floating_point() or value.numel() == 0:
        return True
    return bool(torch.stack(torch.aminmax(value)).isfinite().all())  # NaN is passed on by both


def _is_quick_to_read(loss: Tensor) -> bool:
    """Whether nothing waits for a value to arrive."""
    return loss.is_cpu
