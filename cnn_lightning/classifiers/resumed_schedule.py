"""The schedule that a checkpoint stopped in, for a training that may go on by another."""

import warnings
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from cnn_lightning.classifiers.optimization import (
    LENGTH_ARGUMENTS,
    ClassSpec,
    stored_optimization,
)
from cnn_lightning.errors import UserError

# what schedules change of what an optimizer has put into its groups
_CHANGED_BY_SCHEDULES = ("lr", "momentum", "betas")


class ResumedSchedule:
    """Where a checkpoint stands in its schedule, and the way to the same place in another.

    Torch's `load_state_dict` would bring back the arguments and the length that the schedule was
    made with. A schedule that is asked for anew takes all the steps of the old one instead, as if
    it had been the schedule from the start.

    Args:
        checkpoint: Of a training. Its groups and the state of its schedule are kept, to be changed
            in place.
    """

    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.optimizer, self.schedule, self.interval = stored_optimization(checkpoint)
        self._states: list[dict[str, Any]] = checkpoint.get("lr_schedulers", [])
        self._groups = [state["param_groups"] for state in checkpoint.get("optimizer_states", [])]
        self._steps = checkpoint["global_step"]
        self._loops = checkpoint.get("loops")

    def is_as(self, optimizer: ClassSpec, schedule: ClassSpec, interval: str) -> bool:
        """Whether this is what a training asks for, but perhaps for its length."""
        return (self.optimizer, self.schedule, self.interval) == (optimizer, schedule, interval)

    def go_on_with(
        self, scheduler: LRScheduler, optimizer: ClassSpec, schedule: ClassSpec, interval: str
    ) -> None:
        """Put another schedule in the place of this one, if it is another.

        Args:
            scheduler: Newly built; what is to go on.
            optimizer: What its optimizer was built from.
            schedule: What it was built from.
            interval: What it counts.

        Raises:
            UserError: It has no such place.
        """
        if not self._states or not self._groups:
            return
        known, state = vars(scheduler), self._states[0]
        lengths = LENGTH_ARGUMENTS & known.keys() & state.keys()
        is_as_long = all(known[key] == state[key] for key in lengths)
        if is_as_long and self.is_as(optimizer, schedule, interval):
            return
        place = state.get("last_epoch") if interval == self.interval else None
        _take_steps(scheduler, self._count(interval) if place is None else place)
        self._states[0] = scheduler.state_dict()
        defaults = scheduler.optimizer.defaults
        for old, new in zip(self._groups[0], scheduler.optimizer.param_groups, strict=True):
            for key in old.keys() - new.keys():  # of another schedule
                del old[key]
            for key, value in new.items():
                if key in _CHANGED_BY_SCHEDULES or key not in {"params", *defaults}:
                    old[key] = value

    def _count(self, interval: str) -> int:
        """Steps or epochs that are done."""
        if interval == "step" or self._loops is None:
            return int(self._steps)
        progress = self._loops["fit_loop"]
        epochs = progress["epoch_progress"]["current"]
        # a schedule counts an epoch after its last batch, before its end
        is_over = progress["epoch_loop.batch_progress"]["is_last_batch"]
        return int(epochs["processed"] + (is_over and epochs["started"] > epochs["processed"]))


def _take_steps(scheduler: LRScheduler, number: int) -> None:
    with warnings.catch_warnings():
        # that the optimizer takes none beside it
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(number):
            try:
                scheduler.step()
            except ValueError as error:  # OneCycleLR has an end
                raise UserError(
                    f"{type(scheduler).__name__} cannot take the {number} steps that are done: "
                    f"{error}",
                    "ask for a longer run with --trainer.max_epochs, or for another --schedule",
                ) from error
