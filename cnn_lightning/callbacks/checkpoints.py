"""The two checkpoints of a run: the best, and the newest."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from typing_extensions import override

from cnn_lightning.checkpoint_content import PARAMETERS_KEY
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.window import ends_step
from cnn_lightning.errors import Interrupted
from cnn_lightning.runs import RunFolder


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the state with the highest `val/accuracy`.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(
            dirpath=folder.checkpoints,
            filename="best",
            monitor="val/accuracy",
            mode="max",
            enable_version_counter=False,
        )
        self._folder = folder

    @property
    def folder(self) -> RunFolder:
        """The run folder; it may be another until training begins."""
        return self._folder

    @folder.setter
    def folder(self, folder: RunFolder) -> None:
        self._folder = folder
        self.dirpath = os.path.realpath(folder.checkpoints)  # as the parent writes it

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # the parent forgets the best score if the run folder has moved, and so must a new folder
        best = Path(str(self.dirpath)) / "best.ckpt"
        if best.is_file():
            kept = {str(best): score for score in state_dict["best_k_models"].values()}
            path = str(best) if kept else ""
            paths = dict.fromkeys(("best_model_path", "kth_best_model_path"), path)
            super().load_state_dict(
                {
                    **state_dict,
                    **paths,
                    "dirpath": self.dirpath,
                    "best_k_models": kept,
                    "last_model_path": "",
                }
            )
            self.current_score = state_dict["current_score"]  # the parent saves it and forgets it

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.enable_validation:  # the parent warns where there is none
            super().on_train_epoch_end(trainer, pl_module)

    # at a step it never saves, and its parent would look each time whether it does
    on_train_batch_end = None  # type: ignore[assignment]  # Lightning passes over what is no method

    # the parent warns of a folder that is not empty, which a resumed run's never is
    def _ModelCheckpoint__warn_if_dir_not_empty(self, dirpath: Any) -> None:  # noqa: N802
        pass


class LastCheckpoint(Checkpoint):
    """`last.ckpt`: the newest state, written at every epoch's end and between.

    On Ctrl-C (SIGINT), SIGTERM and whatever else is in `signals`, it is written after the step in
    hand, and `Interrupted` raised; a second Ctrl-C does not wait. Whatever was logged before a
    checkpoint is on disk before it is. Every checkpoint of the run says how many parameters the
    network has.

    Args:
        every_n_steps: Also write after so many optimizer steps; 0 = off.
        every_n_minutes: Also write after so many minutes; 0 = off.
    """

    def __init__(self, every_n_steps: int = 0, every_n_minutes: float = 10.0) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.folder: RunFolder | None = None
        self.signals = [signal.SIGINT, signal.SIGTERM]
        self._signal: int | None = None
        self._waits = False  # a checkpoint, for the validation at its step to be over
        self._handlers: dict[int, Any] = {}
        self._written_at = time.monotonic()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._written_at = time.monotonic()
        if trainer.received_sigterm:  # while other callbacks began
            self._signal = signal.SIGTERM
        # Lightning has set its own handlers by now; ours take their place until the end
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                self._handlers[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: Any) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number

    @override
    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # a resumed run logs nothing of the steps before its checkpoint
        for logger in trainer.loggers:
            logger.save()
        # a state dict does not tell parameters from buffers
        if isinstance(pl_module, ImageClassifier):
            parameters = pl_module.network.parameters()
            checkpoint[PARAMETERS_KEY] = sum(parameter.numel() for parameter in parameters)

    @override
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.is_last_batch or not ends_step(trainer, batch_idx):
            return  # gradients in hand are in no checkpoint
        # Lightning would skip the validation that follows when resumed from here; wait for it
        if self._validates_next(trainer, batch_idx):
            self._waits |= self._is_due_by_steps(trainer)
            return
        heard = self._heard(trainer)
        if heard or self._waits or self._is_due(trainer):
            self._write(trainer)
        self._leave_if(heard)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)
        self._leave_if(self._heard(trainer))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore_handlers()

    @override
    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _heard(self, trainer: L.Trainer) -> int:
        """The signal that this or another process has heard, the same in all of them; 0 = none."""
        number = self._signal or 0
        if trainer.world_size > 1:
            heard = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(heard, reduce_op="max"))
        return number

    def _leave_if(self, number: int) -> None:
        if number:
            raise Interrupted(number)

    def _validates_next(self, trainer: L.Trainer, batch_idx: int) -> bool:
        every = trainer.val_check_batch
        if trainer.check_val_every_n_epoch is None:  # then the count goes on over epochs
            batch_idx = trainer.fit_loop.total_batch_idx
        return isinstance(every, int) and (batch_idx + 1) % every == 0

    def _is_due(self, trainer: L.Trainer) -> bool:
        if self._is_due_by_steps(trainer):
            return True
        waited = time.monotonic() - self._written_at > 60 * self.every_n_minutes
        if trainer.world_size > 1 and self.every_n_minutes:
            waited = trainer.strategy.broadcast(waited)
        return bool(self.every_n_minutes) and waited

    def _is_due_by_steps(self, trainer: L.Trainer) -> bool:
        return bool(self.every_n_steps) and trainer.global_step % self.every_n_steps == 0

    def _write(self, trainer: L.Trainer) -> None:
        self._waits = False
        is_trial = trainer.fast_dev_run  # type: ignore[attr-defined]  # set at run time
        if self.folder is not None and not is_trial:
            trainer.save_checkpoint(self.folder.checkpoints / "last.ckpt")
            self._written_at = time.monotonic()
