"""Training with ever higher learning rates, as the range test wants it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.optimization import rates_of_groups
from cnn_lightning.classifiers.window import ends_step
from cnn_lightning.errors import UserError

# those of Lightning's finder: it ends once the running mean of losses is 4 times its lowest
_BETA = 0.98
_DIVERGED = 4.0


class RateSweep(Callback):
    """Raises the rate by the same factor at each optimizer step, and keeps each step's loss.

    Lightning's finder gives all groups of parameters one rate, and its loss is that of a step's
    last part over the number of parts. Here a group follows if the optimizer's `lr` is its rate,
    and keeps the rate it has otherwise, as it does whatever `lr` a run is given.

    Args:
        lowest: First rate, above 0.
        highest: Last rate.
        steps: How many rates.
        tick: Called after each step.

    Attributes:
        rates: Of each step, as far as it went; it ends before where losses explode.
        losses: Mean over the parts of each step.
    """

    def __init__(
        self, lowest: float, highest: float, steps: int, tick: Callable[[], object]
    ) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._ends = (lowest, highest)
        self._group_ends: list[tuple[float, float]] = []
        self._steps = steps
        self._tick = tick
        self._parts: list[float] = []
        self._mean = 0.0
        self._lowest_mean = math.inf

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.lr_scheduler_configs = []
        self._group_ends = self._find_ends(trainer, pl_module)

    def _find_ends(self, trainer: Trainer, module: LightningModule) -> list[tuple[float, float]]:
        """Each group's rate at the lowest `lr` and at the highest."""
        if (
            not isinstance(module, ImageClassifier)
            or type(module).configure_optimizers is not ImageClassifier.configure_optimizers
        ):  # nobody knows what they do with `lr`
            return [self._ends] * len(trainer.optimizers[0].param_groups)
        first, last = (rates_of_groups(module.optimizer, module, lr) for lr in self._ends)
        if first == last:
            kind = module.optimizer["class_path"].rpartition(".")[2]
            raise UserError(
                f"lr of {kind} is the rate of no parameter that is trained here, so there is "
                "nothing to find",
                "choose another --optimizer, or another --model.freeze",
            )
        return list(zip(first, last, strict=True))

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._parts:
            return
        groups = trainer.optimizers[0].param_groups
        for group, ends in zip(groups, self._group_ends, strict=True):
            group["lr"] = self._between(*ends)

    def _between(self, first: float, last: float) -> float:
        step = len(self.losses)
        # as Lightning's finder has it, whose second step is two steps up
        share = (step + 1) / self._steps if step else 0.0
        return first if first == last else first * (last / first) ** share

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._parts.append(_loss(outputs, trainer.accumulate_grad_batches))
        if not ends_step(trainer, batch_idx):
            return
        self.rates.append(self._between(*self._ends))
        self.losses.append(sum(self._parts) / len(self._parts))
        self._parts = []
        self._tick()
        if self._has_diverged():
            trainer.should_stop = True

    def _has_diverged(self) -> bool:
        self._mean = _BETA * self._mean + (1 - _BETA) * self.losses[-1]
        mean = self._mean / (1 - _BETA ** len(self.losses))
        self._lowest_mean = min(self._lowest_mean, mean)
        return not mean <= _DIVERGED * self._lowest_mean  # nor is it where there is no number


def _loss(outputs: Tensor | Mapping[str, Any] | None, parts: int) -> float:
    """The loss of a training step, which Lightning has divided by the number of parts."""
    loss = outputs if isinstance(outputs, Tensor) else (outputs or {}).get("loss")
    return math.nan if loss is None else parts * float(loss)  # None: the step was skipped
