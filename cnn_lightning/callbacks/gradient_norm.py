"""How large the gradients are, all together."""

import lightning as L
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from typing_extensions import override

from cnn_lightning.classifiers.window import is_logged


class GradientNorm(L.Callback):
    """Logs `train/gradient_norm`: the L2 norm of all gradients together, before clipping.

    At the steps at which the training loss is logged. A run with `trainer.gradient_clip_val` has
    this callback.
    """

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        steps = trainer.global_step + 1
        is_last = trainer.is_last_batch or steps == trainer.max_steps
        if not is_last and not is_logged(trainer, steps):
            return
        norm = float(get_total_norm([p.grad for p in pl_module.parameters() if p.grad is not None]))
        for logger in trainer.loggers:
            logger.log_metrics({"train/gradient_norm": norm}, trainer.global_step)
