"""Learning rates that rise for a while and then fall, as functions of the step alone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override


class WarmupSchedule(LRScheduler, ABC):
    """A linear rise to the optimizer's learning rate, then what a subclass says.

    The warm-up is the gradual one of Goyal et al. 2017 (arXiv:1706.02677, 2.2): of `w` warm-up
    steps, step `t` from 0 has the fraction (t + 1) / (w + 1), so no step is wasted on a rate of 0
    and the peak is reached once, at step `w`.

    The state holds the place in the schedule, not its shape: a run that is resumed with another
    length follows the schedule of that length from its first step on, if the optimizer's state is
    loaded before this one's.

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps in the whole run, at least 1.
        warmup: Part of the run that warms up, 0..1; rounded to whole steps.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, *, warmup: float) -> None:
        if total_steps < 1:
            raise ValueError(f"total_steps {total_steps} must be at least 1")
        _check_fraction("warmup", warmup)
        self.total_steps = total_steps
        self.warmup_steps = round(warmup * total_steps)
        super().__init__(optimizer)  # takes the first step, so it comes last

    @abstractmethod
    def decay(self, step: int) -> float:
        """The fraction of the peak at `step`, from the end of the warm-up on."""

    def fraction(self, step: int) -> float:
        """The fraction of the peak at `step`, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.decay(step)

    def progress(self, step: int) -> float:
        """How much of the time after the warm-up has passed: 0..1, and 1 ever after."""
        if step >= self.total_steps:
            return 1.0
        return (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)

    @override
    def get_lr(self) -> list[float | Tensor]:
        return [base_lr * self.fraction(self.last_epoch) for base_lr in self.base_lrs]

    @override
    def state_dict(self) -> dict[str, Any]:
        place = ("base_lrs", "last_epoch", "_step_count", "_last_lr")
        return {name: getattr(self, name) for name in place}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # the optimizer's own state, loaded before, has the rate of a schedule of the former shape
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


class WarmupCosine(WarmupSchedule):
    """Up in a line, down along half a cosine: SGDR without restarts.

    Equation 5 of Loshchilov & Hutter 2017 (arXiv:1608.03983) after the warm-up, with `final` for
    the lowest rate: final + (1 - final) / 2 · (1 + cos(pi · progress)).

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps in the whole run, at least 1.
        warmup: Part of the run that warms up, 0..1.
        final: Learning rate after the last step, as a fraction of the peak, 0..1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupCosine(optimizer, total_steps=4, warmup=0.25)
        >>> [round(schedule.fraction(step), 3) for step in range(5)]
        [0.5, 1.0, 0.75, 0.25, 0.0]
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0
    ) -> None:
        _check_fraction("final", final)
        self.final = final
        super().__init__(optimizer, total_steps, warmup=warmup)

    @override
    def decay(self, step: int) -> float:
        cosine = math.cos(math.pi * self.progress(step))
        return self.final + (1 - self.final) / 2 * (1 + cosine)


class WarmupLinear(WarmupSchedule):
    """A triangle: up in a line, down in a line.

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps in the whole run, at least 1.
        warmup: Part of the run that warms up, 0..1.
        final: Learning rate after the last step, as a fraction of the peak, 0..1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupLinear(optimizer, total_steps=5, warmup=0.2)
        >>> [schedule.fraction(step) for step in range(6)]
        [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, final: float = 0.0
    ) -> None:
        _check_fraction("final", final)
        self.final = final
        super().__init__(optimizer, total_steps, warmup=warmup)

    @override
    def decay(self, step: int) -> float:
        return 1 + (self.final - 1) * self.progress(step)


class WarmupSteps(WarmupSchedule):
    """Up in a line, then level with sudden drops.

    Drops by ten at half and at three quarters of the run are those of He et al. 2016 on CIFAR-10
    (arXiv:1512.03385, 4.2: 32,000 and 48,000 of 64,000 steps).

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps in the whole run, at least 1.
        warmup: Part of the run that warms up, 0..1.
        milestones: Where the rate drops, as parts of the run, 0..1 and rising.
        factor: What each drop multiplies the rate by, 0..1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupSteps(optimizer, total_steps=4, factor=0.5)
        >>> [schedule.fraction(step) for step in range(5)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup: float = 0.0,
        milestones: Sequence[float] = (0.5, 0.75),
        factor: float = 0.1,
    ) -> None:
        for milestone in milestones:
            _check_fraction("a milestone", milestone)
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones {milestones} must rise")
        _check_fraction("factor", factor)
        if milestones and milestones[0] < warmup:
            raise ValueError(f"milestone {milestones[0]} lies within the warm-up of {warmup}")
        # rounded, since 0.55 * 100 is a little more than 55
        self.drop_steps = [round(milestone * total_steps) for milestone in milestones]
        self.factor = factor
        super().__init__(optimizer, total_steps, warmup=warmup)

    @override
    def decay(self, step: int) -> float:
        num_drops = sum(step >= drop_step for drop_step in self.drop_steps)
        return float(self.factor**num_drops)


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {value} must lie in 0..1")
