"""Runs that are stopped by a signal and go on, against runs that are not stopped."""

import os
import signal
from pathlib import Path

import lightning as L
import pytest
from compare import assert_same_checkpoint

from cnn_lightning.callbacks import LastCheckpoint
from cnn_lightning.cli import main

LAST = Path("checkpoints/last.ckpt")


class StopAt:
    """Sends this process a signal after a step, as a person or a cluster would."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = LastCheckpoint.on_train_batch_end

        def wrapped(callback: LastCheckpoint, trainer: L.Trainer, *args: object) -> None:
            if trainer.global_step == self.step:
                os.kill(os.getpid(), self.number)
            original(callback, trainer, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", wrapped)


def assert_resumes_exactly(
    recipe: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *steps: int
) -> Path:
    """Fit a recipe whole, and once more with stops after these steps; the whole run's folder.

    Nothing is drawn, which takes longer than the training.
    """
    config = folder / "small.yaml"
    config.write_text(
        f"{recipe}\nfeature_maps: {{every_n_epochs: 0}}\nkernels: {{every_n_epochs: 0}}\n"
    )
    fit = ["fit", "--config", str(config), "--trainer.enable_model_summary=false", "--log_dir"]
    assert main([*fit, str(folder / "whole")]) == 0
    more: tuple[str, ...] = ()
    for step in steps:
        with monkeypatch.context() as patch:
            StopAt(step).install(patch)
            assert main([*fit, str(folder / "cut"), *more]) == 128 + signal.SIGTERM
        more = ("--ckpt_path", "last")
    assert main([*fit, str(folder / "cut"), *more]) == 0
    runs = [folder / name / "small/version_0" for name in ("whole", "cut")]
    assert_same_checkpoint(*(run / LAST for run in runs))
    return runs[0]
