"""A run whose numbers go bad ends, and what is kept of it is good."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cnn_lightning.callbacks import bad_numbers
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.metrics import EvaluationMetrics
from cnn_lightning.cli import main

# nine steps an epoch, a checkpoint every second
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 300, num_test: 40, batch_size: 32}
model: {class_path: LeNet, init_args: {activation: relu}}
optimizer: {class_path: SGD, init_args: {lr: 0.1}}
schedule: {class_path: ConstantLR, init_args: {factor: 1}}
trainer: {max_epochs: 2, log_every_n_steps: 2, accelerator: cpu}
checkpoint: {every_n_steps: 2}
feature_maps: {every_n_epochs: 0}
kernels: {every_n_epochs: 0}
activation_statistics: {every_n_epochs: 0}
"""
Fit = Callable[..., int]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    logs = str(tmp_path / "logs")
    return lambda *more: main(["fit", "--config", str(recipe), "--log_dir", logs, *more])


@pytest.fixture
def last(tmp_path: Path) -> Path:
    return tmp_path / "logs/small/version_0/checkpoints/last.ckpt"


def spoil_loss(monkeypatch: pytest.MonkeyPatch, step: int, factor: float) -> None:
    original = ImageClassifier.training_step

    def spoilt(self: ImageClassifier, *args: object) -> Tensor:
        loss = original(self, *args)  # type: ignore[arg-type]
        return loss * factor if self.trainer.global_step == step else loss

    monkeypatch.setattr(ImageClassifier, "training_step", spoilt)


def assert_good(checkpoint: Path, step: int) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert content["global_step"] == step
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values())


def test_a_bad_loss_stops_the_run_and_names_the_last_good_state(
    fit: Fit,
    last: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil_loss(monkeypatch, 5, float("nan"))
    assert fit() == 1
    assert_good(last, 4)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "error: the training loss is nan at step 5 (epoch 1, learning rate 0.1)",
        f"  the last good state is {last}, step 4: go on from it (--ckpt_path) with a lower rate, "
        "or with clipped gradients: --optimizer.init_args.lr 0.01, --trainer.gradient_clip_val 1",
    ]
    monkeypatch.undo()
    flags = ("--optimizer.init_args.lr", "0.01", "--trainer.gradient_clip_val", "1")
    assert fit("--ckpt_path", str(last), *flags) == 0
    assert_good(last, 18)


def test_an_infinite_loss_stops_the_run_too(
    fit: Fit, last: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_loss(monkeypatch, 5, float("inf"))
    assert fit() == 1
    assert_good(last, 4)
    assert "the training loss is inf at step 5" in capsys.readouterr().err


def test_a_rate_far_too_high_ends_before_the_first_checkpoint(
    fit: Fit, last: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--optimizer.init_args.lr", "1e8", "--checkpoint.every_n_steps", "0") == 1
    assert "there is no good state yet: start again with a lower rate" in capsys.readouterr().err
    assert not last.exists()


def test_a_bad_loss_is_found_at_logging_where_reading_it_each_step_would_wait(
    fit: Fit,
    last: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bad_numbers, "_is_quick_to_read", lambda loss: False)
    spoil_loss(monkeypatch, 4, float("nan"))
    assert fit("--checkpoint.every_n_steps", "1", "--trainer.log_every_n_steps", "3") == 1
    # the weights went bad with step 4, which was to be written before step 6 was logged
    assert_good(last, 4)
    assert "is no longer finite, found at step 5" in capsys.readouterr().err
    monkeypatch.setattr(bad_numbers.BadNumbers, "on_save_checkpoint", lambda *args: None)
    assert fit("--trainer.log_every_n_steps", "3") == 1
    assert "loss is nan in the last 3 step(s), found at step 6" in capsys.readouterr().err


@pytest.mark.parametrize("every", [0, 50, 5])
def test_a_bad_loss_is_found_at_the_latest_at_the_end_of_its_epoch(
    every: int, fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bad_numbers, "_is_quick_to_read", lambda loss: False)
    spoil_loss(monkeypatch, 6, float("nan"))
    flags = ("--checkpoint.every_n_steps", "0", "--trainer.log_every_n_steps", str(every))
    assert fit(*flags) == 1
    steps = 4 if every == 5 else 9
    assert f"in the last {steps} step(s), found at step 9 (epoch 1" in capsys.readouterr().err


@pytest.mark.parametrize("gradient", [math.inf, -math.inf, math.nan])
def test_weights_that_go_bad_under_a_good_loss_are_not_written(
    gradient: float,
    fit: Fit,
    last: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoil(self: ImageClassifier, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.global_step == 5:
            next(self.parameters()).grad[-1] = gradient  # type: ignore[index]

    monkeypatch.setattr(ImageClassifier, "on_before_optimizer_step", spoil)
    assert fit() == 1
    assert_good(last, 4)
    assert f"last good state is {last}, step 4" in capsys.readouterr().err


def test_one_bad_validation_batch_stops_the_run(
    fit: Fit, last: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = EvaluationMetrics.update
    batches = iter([1, float("nan"), *[1] * 100])

    def spoilt(self: EvaluationMetrics, logits: Tensor, labels: Tensor) -> None:
        original(self, logits * next(batches), labels)

    monkeypatch.setattr(EvaluationMetrics, "update", spoilt)
    assert fit("--data.eval_batch_size", "10") == 1
    assert "the validation loss is nan at step 9 (epoch 1" in capsys.readouterr().err
    assert_good(last, 8)  # not that of the epoch's end
    assert not (last.parent / "best.ckpt").exists()


def test_it_can_be_turned_off(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_loss(monkeypatch, 5, float("nan"))
    assert fit("--bad_numbers.stop", "false") == 0
