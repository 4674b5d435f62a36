"""Averages of weights against the recursion that defines them, and through checkpoints."""

import csv
import pickle
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from stopping import LAST, StopAt, assert_resumes_exactly
from torch import Tensor

from cnn_lightning.callbacks import WeightAverage
from cnn_lightning.checkpoint_io import AtomicCheckpointIO
from cnn_lightning.classifiers import LeNet
from cnn_lightning.cli import main
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.errors import UserError

# 108 training images: four steps an epoch
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 120, num_test: 20, batch_size: 30}
model: {class_path: LeNet, init_args: {activation: relu, batch_norm: true}}
feature_maps: {every_n_epochs: 0}
kernels: {every_n_epochs: 0}
trainer: {max_epochs: 3, enable_model_summary: false}
"""
State = dict[str, Tensor]


def copy_of(module: L.LightningModule) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


class Recorder(L.Callback):
    """The weights after each step, and those that validation sees."""

    def __init__(self) -> None:
        self.trained: list[State] = []
        self.validated: list[State] = []

    def on_train_batch_end(self, trainer: Any, pl_module: L.LightningModule, *_: Any) -> None:
        self.trained.append(copy_of(pl_module))

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.validated.append(copy_of(pl_module))


def train(average: WeightAverage, tmp_path: Path, **kwargs: Any) -> tuple[LeNet, Recorder, Path]:
    """Three epochs of four steps; a checkpoint of the end of the second."""
    L.seed_everything(0, verbose=False)
    classifier, recorder = LeNet(10, activation="relu", batch_norm=True), Recorder()
    path = tmp_path / "some.ckpt"

    class Save(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(path)

    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        callbacks=[average, recorder, Save()],
        plugins=AtomicCheckpointIO(),
        **kwargs,
    )
    trainer.fit(classifier, ShapesDataModule(num_images=120, num_test=20, batch_size=30))
    return classifier, recorder, path


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_it_can_be_sent_to_new_processes(decay: float) -> None:
    assert pickle.loads(pickle.dumps(WeightAverage(decay))).decay == decay


def assert_close(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, wanted[name], msg=lambda told, name=name: f"{name}: {told}"
        )


def assert_same(found: State, wanted: State) -> None:
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def recursion(trained: list[State], decay: float) -> State:
    """average <- decay * average + (1 - decay) * weights, from the first weights on."""
    average = dict(trained[0])
    for state in trained[1:]:
        for name, value in state.items():
            if value.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * value
            else:
                average[name] = value
    return average


def test_the_average_is_that_of_its_recursion(tmp_path: Path) -> None:
    classifier, recorder, path = train(WeightAverage(0.8), tmp_path)
    assert len(recorder.trained) == 12
    # the sanity check, and three epochs
    for number, seen in enumerate(recorder.validated[1:], start=1):
        assert_close(seen, recursion(recorder.trained[: 4 * number], 0.8))
    assert_close(copy_of(classifier), recursion(recorder.trained, 0.8))
    checkpoint = torch.load(path, weights_only=True)
    assert_same(checkpoint["state_dict"], recorder.validated[2])
    assert_same(checkpoint["current_model_state"], recorder.trained[7])
    moved = [
        name
        for name, v in recorder.validated[2].items()
        if not torch.equal(v, recorder.trained[7][name])
    ]
    assert any("running_mean" in name for name in moved)
    assert not any("num_batches_tracked" in name for name in moved)


def test_updates_are_as_far_apart_and_as_late_as_is_said(tmp_path: Path) -> None:
    _, recorder, _ = train(WeightAverage(0.5, every_n_steps=3, start_step=5), tmp_path)
    assert_close(recorder.validated[3], recursion([recorder.trained[n] for n in (5, 8, 11)], 0.5))


def test_training_is_the_same_with_and_without_an_average(tmp_path: Path) -> None:
    runs = [train(WeightAverage(decay), tmp_path)[1] for decay in (0.0, 0.9)]
    for one, other in zip(runs[0].trained, runs[1].trained, strict=True):
        assert_same(one, other)


def test_until_the_first_update_validation_and_checkpoints_have_the_weights(tmp_path: Path) -> None:
    _, recorder, path = train(WeightAverage(0.9, start_step=9), tmp_path)
    assert_same(recorder.validated[1], recorder.trained[3])
    assert_same(recorder.validated[2], recorder.trained[7])
    checkpoint = torch.load(path, weights_only=True)
    assert_same(checkpoint["state_dict"], recorder.trained[7])
    assert checkpoint["averaging_state"]["n_averaged"] == 0
    assert_close(recorder.validated[3], recursion(recorder.trained[9:], 0.9))


def test_an_average_that_is_off_leaves_nothing_behind(tmp_path: Path) -> None:
    classifier, recorder, path = train(WeightAverage(), tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    assert "current_model_state" not in checkpoint
    assert "WeightAverage" not in checkpoint["callbacks"]
    assert_same(copy_of(classifier), recorder.trained[-1])


def test_a_failure_in_validation_leaves_the_trained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[State] = []
    trained: list[LeNet] = []
    original = LeNet.validation_step

    def fail(self: LeNet, batch: Any, batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            trained.append(self)
            seen.append(copy_of(self))
            raise RuntimeError("broken")
        original(self, batch, batch_idx)

    monkeypatch.setattr(LeNet, "validation_step", fail)
    steps: list[State] = []
    monkeypatch.setattr(
        LeNet, "on_train_batch_end", lambda self, *_: steps.append(copy_of(self)), raising=False
    )
    with pytest.raises(RuntimeError, match="broken"):
        train(WeightAverage(0.9), tmp_path)
    assert_same(copy_of(trained[0]), steps[-1])
    name = "network.head.weight"
    assert not torch.equal(steps[-1][name], seen[0][name])  # that was the average


@pytest.mark.parametrize(
    "argument", [{"decay": 1.0}, {"decay": -0.1}, {"every_n_steps": 0}, {"start_step": -1}]
)
def test_numbers_out_of_range_are_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="weight_average"):
        WeightAverage(**argument)


def test_a_resumed_run_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = "{decay: 0.9, every_n_steps: 2, start_step: 5}"
    recipe = RECIPE.partition("feature_maps")[0] + f"weight_average: {settings}\n"
    recipe += "trainer: {max_epochs: 3}\n"
    # in mid-epoch, before and after the first update
    assert_resumes_exactly(recipe, tmp_path, monkeypatch, 3, 7)


def fit(folder: Path, *more: str) -> int:
    config = folder / "small.yaml"
    config.write_text(RECIPE)
    return main(["fit", "--config", str(config), "--log_dir", str(folder), *more])


def val_losses(run: Path) -> list[float]:
    """What validations of a run have logged, in order."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [float(row["val/loss"]) for row in csv.DictReader(stream) if row["val/loss"]]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of an epoch, to be copied."""
    folder = tmp_path_factory.mktemp("averaged")
    assert fit(folder, "--weight_average.decay=0.9", "--trainer.max_epochs=1") == 0
    return folder


def test_checkpoints_give_what_validation_saw(averaged: Path, tmp_path: Path) -> None:
    run = averaged / "small/version_0"
    (wanted,) = val_losses(run)
    for which in ("last", "best"):
        shutil.copytree(averaged, tmp_path / which)
        argv = ["validate", "--ckpt_path", which, "--run", "small"]
        assert main([*argv, "--log_dir", str(tmp_path / which)]) == 0
        _, found = val_losses(tmp_path / which / "small/version_0")
        assert found == pytest.approx(wanted, rel=1e-6)
    trained = torch.load(run / LAST, weights_only=True)
    classifier = LeNet.load_from_checkpoint(run / LAST)
    assert_same(copy_of(classifier), trained["state_dict"])
    classifier.load_state_dict(trained["current_model_state"])
    data = ShapesDataModule(num_images=120, num_test=20)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (raw,) = trainer.validate(classifier, data, verbose=False)
    assert raw["val/loss"] != pytest.approx(wanted, rel=1e-6)  # the two do differ


def test_an_average_is_turned_off_and_on_in_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, decay in (("whole", "0"), ("off", "0.9")):
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            StopAt(6).install(patch)
            assert fit(tmp_path / name, f"--weight_average.decay={decay}") == 143
    shutil.copytree(tmp_path / "whole", tmp_path / "on")
    states = {}
    for name, decay in (("whole", "0"), ("off", "0"), ("on", "0.9")):
        assert fit(tmp_path / name, f"--weight_average.decay={decay}", "--ckpt_path=last") == 0
        assert "average" in capsys.readouterr().out or name == "whole"
        path = tmp_path / name / "small/version_0" / LAST
        states[name] = torch.load(path, weights_only=True)
        # what is trained does not depend on averages
        trained = states[name].get("current_model_state", states[name]["state_dict"])
        assert_same(trained, states["whole"]["state_dict"])
        assert ("current_model_state" in states[name]) == (name == "on")


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("current_model_state", {}, "trained weights are not those"),
        ("averaging_state", None, "state of the average is not whole"),
        ("averaging_state", {"n_averaged": torch.tensor(-1)}, "n_averaged is a tensor"),
        ("averaging_state", {"n_averaged": torch.tensor([1, 2])}, "n_averaged is a tensor"),
    ],
)
def test_a_damaged_average_is_refused_in_a_line(
    part: str,
    value: Any,
    told: str,
    averaged: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(averaged, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "small/version_0" / LAST
    content = torch.load(path, weights_only=True)
    content[part] = value
    torch.save(content, path)
    assert fit(tmp_path, "--weight_average.decay=0.9", "--ckpt_path=last") == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert "Traceback" not in errors
