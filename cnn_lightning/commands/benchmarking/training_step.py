"""The Trainer with all that `fit` puts into it, raced against a bare loop by turns."""

from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from cnn_lightning.commands.arguments import Start
from cnn_lightning.commands.benchmarking.bare_loop import BareLoop, find_autocast
from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.commands.benchmarking.timing import clock
from cnn_lightning.commands.training import TrainingCLI
from cnn_lightning.errors import UserError

# with these an epoch would not be a row of training steps, or the run would end elsewhere
_REFUSED: dict[str, Any] = {
    "fast_dev_run": False,
    "max_steps": -1,
    "max_time": None,
    "overfit_batches": 0.0,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
    "reload_dataloaders_every_n_epochs": 0,
}


class MeasuredCLI(TrainingCLI):
    """`fit` itself, with callbacks that measure it put before all others.

    Args:
        start: What the command line asks for.
        watches: The callbacks.
        runs: Whether to train, or only to build what would be trained.

    Raises:
        UserError: The trainer's settings leave nothing to measure.
    """

    def __init__(
        self, start: Start, watches: Sequence[Callback] = (), *, runs: bool = True
    ) -> None:
        self.watches = watches
        self.runs = runs
        super().__init__("fit", start)

    @override
    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        trainer = self.config["fit"].trainer
        for key, usual in _REFUSED.items():
            given = trainer.get(key)
            if given is not None and given not in (usual, 1.0 if "interval" in key else usual):
                raise UserError(f"benchmark takes no trainer.{key}", "leave it out")

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.world_size > 1:
            raise UserError(
                f"benchmark measures one process, not {trainer.world_size}",
                "give --trainer.devices 1",
            )
        find_autocast(trainer.precision)  # a mistake is told before anything is measured
        trainer.callbacks[:0] = self.watches  # type: ignore[attr-defined]  # Lightning's own
        return trainer

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        if self.runs:
            super()._run_subcommand(subcommand)

    @override
    def after_fit(self) -> None:
        """Nothing: the run folder is about to go."""


class Race(Callback):
    """Runs a bare loop for a turn before or after each of the Trainer's.

    The Trainer's turns count all that callbacks and loggers do at a step, and fill its epochs from
    their start to the beginning of validation. What comes then, up to the next epoch, is timed by
    itself. The first epoch of both warms up.

    Args:
        turn: Steps of a turn; 0 takes whole epochs. The shorter, the less a machine that slows
            down comes between the two; on a GPU each turn ends with a wait for the device.

    Attributes:
        loop: The bare loop, once training has begun.
    """

    def __init__(self, turn: int = 0) -> None:
        self.loop: BareLoop | None = None
        self._turn = turn
        self._turns: Iterator[int] = iter(())
        self._trainer_s: list[float] = []
        self._bare_s: list[float] = []
        self._num_images: list[int] = []
        self._epoch_s: list[float] = []
        self._end_s: list[float] = []
        self._facts: dict[str, Any] = {}
        self._began: float | None = None
        self._ended: float | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.loop = BareLoop.beside(trainer, pl_module)
        if not 0 < self._turn < self.loop.num_batches:
            self._turn = self.loop.num_batches
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's own
        self._facts = {
            "batch_size": self.loop.data.batch_size,
            "steps": self.loop.num_batches,
            "steps_of_a_turn": self._turn,
            "precision": str(trainer.precision),
            "callbacks": [type(one).__name__ for one in callbacks if one is not self],
            "loggers": [type(one).__name__ for one in trainer.loggers],
        }

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.loop is not None  # noqa: S101  # since on_train_start
        self._finish_end(trainer)
        self._turns = self.loop.train_epoch(trainer.current_epoch, self._turn)
        self._epoch_s.append(0.0)
        if trainer.current_epoch % 2:
            self._run_bare(trainer)
        self._began = clock(trainer.strategy.root_device)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx and batch_idx % self._turn == 0:
            self._stop(trainer)
            self._run_bare(trainer)
            self._began = clock(trainer.strategy.root_device)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)
        if trainer.current_epoch % 2 == 0:
            before = clock(trainer.strategy.root_device)
            self._run_bare(trainer)
            assert self._ended is not None  # noqa: S101  # since _stop
            self._ended += clock(trainer.strategy.root_device) - before

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish_end(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self._began is not None:
            self._ended = clock(trainer.strategy.root_device)
            self._trainer_s.append(self._ended - self._began)
            self._epoch_s[-1] += self._trainer_s[-1]
            self._began = None

    def _finish_end(self, trainer: Trainer) -> None:
        if self._ended is not None:
            self._end_s.append(clock(trainer.strategy.root_device) - self._ended)
            self._ended = None

    def _run_bare(self, trainer: Trainer) -> None:
        began = clock(trainer.strategy.root_device)
        self._num_images.append(next(self._turns))
        self._bare_s.append(clock(trainer.strategy.root_device) - began)

    @property
    def facts(self) -> dict[str, Any]:
        """What ran: batch size, steps, precision, the names of all callbacks and loggers."""
        return self._facts

    def measurements(self) -> list[Measurement]:
        """The race, a value per turn, and what the ends of epochs took beside it."""
        facts = self._facts
        warm = -(-facts["steps"] // self._turn)  # turns of the first epoch
        images = self._num_images[warm:]
        return [
            Measurement(
                "step",
                f"training through the Trainer, batches of {facts['batch_size']}, "
                f"{facts['precision']}, by turns of {self._turn}",
                "images/s",
                [n / s for n, s in zip(images, self._trainer_s[warm:], strict=True)],
                "a bare loop",
                [n / s for n, s in zip(images, self._bare_s[warm:], strict=True)],
            ),
            Measurement(
                "step",
                "end of an epoch: validation, checkpoints, pictures",
                "s",
                self._end_s[1:],
                "the steps of that epoch",
                self._epoch_s[1:],
            ),
        ]
