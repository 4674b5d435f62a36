"""The bare loop does what the Trainer does, to the last bit; only so is the race a fair one."""

import time
from pathlib import Path

import pytest
import torch
from make_data import make_weights
from torch import Tensor

from cnn_lightning.commands.arguments import read_start
from cnn_lightning.commands.benchmarking.training_step import MeasuredCLI, Race
from cnn_lightning.commands.training import silence
from cnn_lightning.errors import UserError
from cnn_lightning.randomness import key_to_seed

SHAPES = [
    *("--data", "ShapesDataModule", "--data.num_images", "100", "--data.num_test", "20"),
    *("--data.batch_size", "16", "--data.augment", "crop_flip"),
]
QUIET = [
    *("--feature_maps.every_n_epochs", "0", "--kernels.every_n_epochs", "0"),
    *("--activation_statistics.every_n_epochs", "0", "--trainer.log_every_n_steps", "2"),
]


def race(
    log_dir: Path, *more: str, epochs: int = 3, turn: int = 0
) -> tuple[Race, dict[str, Tensor]]:
    """Run a race; the race, and the Trainer's weights after it."""
    silence()
    argv = [*SHAPES, "--model", "LeNet", *QUIET, "--log_dir", str(log_dir)]
    argv += ["--trainer.max_epochs", str(epochs), *more]
    found = Race(turn)
    cli = MeasuredCLI(read_start("fit", argv), [found])
    return found, cli.model.network.state_dict()


def assert_same(found: Race, weights: dict[str, Tensor]) -> None:
    assert found.loop is not None
    bare = found.loop.network.state_dict()
    assert bare.keys() == weights.keys()
    for name, value in bare.items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--trainer.accumulate_grad_batches", "4", "--model.batch_norm", "true"],
        ["--trainer.gradient_clip_val", "0.1"],
        ["--trainer.gradient_clip_val", "0.001", "--trainer.gradient_clip_algorithm", "value"],
        ["--trainer.precision", "bf16-mixed"],
        ["--trainer.limit_train_batches", "3", "--model.schedule_interval", "epoch"],
        ["--optimizer", "AdamW", "--schedule", "OneCycleLR", "--schedule.max_lr", "0.01"],
        ["--model.label_smoothing", "0.1", "--data.mixup", "0.2", "--data.start_size", "28"],
    ],
    ids=[
        *("plain", "accumulated", "clipped", "clipped by value", "bf16", "by epoch", "one cycle"),
        "tricks",
    ],
)
def test_bare_loop_ends_with_the_weights_of_the_trainer(more: list[str], tmp_path: Path) -> None:
    assert_same(*race(tmp_path, *more))


@pytest.mark.parametrize("turn", [1, 4, 50])
def test_turns_within_an_epoch_change_no_weight(turn: int, tmp_path: Path) -> None:
    found, weights = race(tmp_path, "--model.schedule_interval", "epoch", turn=turn)
    assert_same(found, weights)
    assert found.facts["steps_of_a_turn"] == min(turn, 6)
    steps, ends = found.measurements()
    turns = {1: [16] * 5 + [10], 4: [64, 26], 50: [90]}[turn] * 2  # images of both epochs
    assert len(steps.values) == len(steps.reference_values) == len(turns)
    taken = [images / speed for images, speed in zip(turns, steps.values, strict=True)]
    half = len(turns) // 2
    assert ends.reference_values == pytest.approx([sum(taken[:half]), sum(taken[half:])])


def test_the_loop_is_compiled_if_the_network_is(tmp_path: Path) -> None:
    found, weights = race(tmp_path, "--compile", "eager", epochs=1)
    assert found.loop is not None
    assert found.loop.network._compiled_call_impl is not None
    assert_same(found, weights)


def test_auxiliary_heads_are_trained_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the Trainer's draws are made anew at every step, the bare loop's are not
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, values: values)
    more = ["--model", "Inception", "--model.version", "googlenet", "--data.num_images", "40"]
    assert_same(*race(tmp_path, *more, epochs=1))


def test_a_frozen_backbone_is_raced_on_its_features(tmp_path: Path) -> None:
    make_weights("resnet18")
    more = ["--model", "ResNet", "--model.weights", "DEFAULT", "--model.freeze", "backbone"]
    more += ["--data.augment", "none", "--model.image_size", "32", "--model.stem", "imagenet"]
    found, weights = race(tmp_path, *more)
    assert_same(found, weights)


def test_other_draws_give_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_generator(*key: int | str) -> torch.Generator:
        return torch.Generator().manual_seed(key_to_seed("another", *key))

    _, weights = race(tmp_path / "one")
    monkeypatch.setattr("cnn_lightning.data.base.generator", other_generator)
    found, others = race(tmp_path / "other")
    assert_same(found, others)
    with pytest.raises(AssertionError):
        assert_same(found, weights)


def test_all_that_fit_puts_in_takes_part_and_each_epoch_is_timed(tmp_path: Path) -> None:
    before = time.perf_counter()
    found, _ = race(tmp_path)
    took = time.perf_counter() - before
    steps, ends = found.measurements()
    assert found.loop is not None
    assert found.loop.network._compiled_call_impl is None
    assert found.facts["callbacks"][0] == "EpochLines"
    assert {"BestCheckpoint", "LastCheckpoint", "Throughput", "BadNumbers", "PredictionGrid"} < set(
        found.facts["callbacks"]
    )
    assert found.facts["loggers"] == ["EventFiles", "MetricsTable"]
    assert found.facts["steps"] == 6
    assert len(steps.values) == len(steps.reference_values) == len(ends.values) == 2
    timed = [90 / speed for speed in (*steps.values, *steps.reference_values)]
    assert 0 < sum(timed) + sum(ends.values) < took
    assert ends.reference_values == pytest.approx([90 / speed for speed in steps.values])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--trainer.precision", "bf16-true"], "bf16-true"),
        (["--trainer.max_steps", "5"], "trainer.max_steps"),
        (["--trainer.fast_dev_run", "true"], "trainer.fast_dev_run"),
        (["--trainer.val_check_interval", "0.5"], "trainer.val_check_interval"),
        (["--trainer.devices", "2", "--trainer.accelerator", "cpu"], "--trainer.devices 1"),
    ],
)
def test_what_cannot_be_raced_is_refused(more: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        race(tmp_path, *more)
