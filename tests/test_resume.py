"""A run that stops and goes on ends with the same bits as one that does not stop."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from compare import assert_same_checkpoint, differences
from make_data import make_folder
from small import UNDRAWN
from stopping import LAST, StopAt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_lightning.callbacks import FeatureCache, LastCheckpoint
from cnn_lightning.classifiers import LeNet
from cnn_lightning.cli import main
from cnn_lightning.commands import arguments
from cnn_lightning.commands.arguments import read_start
from cnn_lightning.settings import read_settings

# shapes: colour, augmented, nothing to read; 270 training images are nine steps of 32;
# tests/stress/ compares what is drawn
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 300, num_test: 40, batch_size: 32, augment: crop_flip}
model:
  class_path: LeNet
  init_args: {activation: relu}
trainer: {max_epochs: 3, log_every_n_steps: 2, enable_model_summary: false}
feature_maps: {every_n_epochs: 0}
kernels: {every_n_epochs: 0}
activation_statistics: {every_n_epochs: 0}
"""
STEPS_PER_EPOCH = 9
SHORT = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", *UNDRAWN]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def fit(recipe: Path, log_dir: Path, *more: str) -> int:
    return main(["fit", "--config", str(recipe), "--log_dir", str(log_dir), *more])


def folder(log_dir: Path) -> Path:
    (found,) = (log_dir / "small").glob("version_*")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the recipe, trained to its end."""
    place = tmp_path_factory.mktemp("whole")
    (place / "small.yaml").write_text(RECIPE)
    with torch.random.fork_rng():
        assert fit(place / "small.yaml", place) == 0
    del os.environ["PL_GLOBAL_SEED"]
    return folder(place)


def test_run_of_balanced_classes_stopped_in_each_epoch_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "photos", ("ant", "bee", "cow"), per_class=20, size=(32, 32))
    for path in sorted((root / "train/cow").iterdir())[5:]:
        path.unlink()
    # 40 training images, 14 of each class in an epoch: five steps of 8 and one of 2
    recipe = tmp_path / "small.yaml"
    recipe.write_text(f"""
data:
  class_path: ImageFolderDataModule
  init_args: {{root: {root}, batch_size: 8, sampling: balanced, augment: crop_flip}}
model: {{class_path: LeNet, init_args: {{class_weights: [1, 2, 3]}}}}
trainer: {{max_epochs: 2}}
feature_maps: {{every_n_epochs: 0}}
kernels: {{every_n_epochs: 0}}
""")
    assert fit(recipe, tmp_path / "whole") == 0
    more: tuple[str, ...] = ()
    for step in (2, 8):
        with monkeypatch.context() as context:
            StopAt(step, signal.SIGTERM).install(context)
            assert fit(recipe, tmp_path / "cut", *more) == 143
        state = torch.load(folder(tmp_path / "cut") / LAST, weights_only=True)
        assert state["global_step"] == step
        more = ("--ckpt_path", "last")
    assert fit(recipe, tmp_path / "cut", *more) == 0
    assert_same_checkpoint(folder(tmp_path / "whole") / LAST, folder(tmp_path / "cut") / LAST)
    # the control: without it, the run is another
    assert fit(recipe, tmp_path / "other", "--data.sampling", "each_once") == 0
    contents = [
        torch.load(folder(tmp_path / name) / LAST, weights_only=True)["state_dict"]
        for name in ("whole", "other")
    ]
    assert differences(*contents)


@pytest.mark.parametrize(
    "step",
    # a test below stops amid the second epoch, and looks at more
    [1, 4, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH - 1],
    ids=["first step", "mid-epoch", "epoch's end", "last but one"],
)
def test_resumed_run_ends_with_the_same_bits(
    step: int, recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        StopAt(step, signal.SIGTERM).install(patch)
        assert fit(recipe, tmp_path / "cut") == 128 + signal.SIGTERM
    stopped = torch.load(folder(tmp_path / "cut") / LAST, weights_only=True)
    assert stopped["global_step"] == step
    assert fit(recipe, tmp_path / "cut", "--ckpt_path", "last") == 0
    assert_same_checkpoint(whole / LAST, folder(tmp_path / "cut") / LAST)
    assert rows(whole) == rows(folder(tmp_path / "cut"))


def test_a_run_that_has_come_to_its_end_says_that_nothing_is_left(
    recipe: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "small/version_0")
    before = (whole / LAST).read_bytes()
    told = "nothing was left to train after step"
    assert fit(recipe, tmp_path, "--ckpt_path", "last") == 0
    assert told in capsys.readouterr().out
    assert (folder(tmp_path) / LAST).read_bytes() == before
    more = torch.load(whole / LAST, weights_only=True)["epoch"] + 2
    assert fit(recipe, tmp_path, "--ckpt_path", "last", f"--trainer.max_epochs={more}") == 0
    assert told not in capsys.readouterr().out


def test_run_stopped_twice_in_one_epoch_ends_with_the_same_bits(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: tuple[str, ...] = ()
    for step in (11, 14):
        with monkeypatch.context() as patch:
            StopAt(step, signal.SIGINT).install(patch)
            assert fit(recipe, tmp_path / "cut", *more) == 128 + signal.SIGINT
        more = ("--ckpt_path", "last")
    assert fit(recipe, tmp_path / "cut", *more) == 0
    assert_same_checkpoint(whole / LAST, folder(tmp_path / "cut") / LAST)


@pytest.mark.parametrize(
    ("batch", "more"),
    [
        (13, ["--trainer.accumulate_grad_batches=2"]),
        (14, ["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=5"]),
    ],
    ids=["amid the batches of a step", "before a validation"],
)
def test_a_stop_waits_for_what_no_checkpoint_holds(
    batch: int,
    more: list[str],
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fit(recipe, tmp_path / "whole", *more) == 0
    before = LastCheckpoint.on_train_batch_end

    def wrapped(callback: LastCheckpoint, trainer: L.Trainer, *args: object) -> None:
        if trainer.fit_loop.total_batch_idx == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        before(callback, trainer, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", wrapped)
        assert fit(recipe, tmp_path / "cut", *more) == 128 + signal.SIGTERM
    assert fit(recipe, tmp_path / "cut", "--ckpt_path", "last", *more) == 0
    runs = [folder(tmp_path / name) for name in ("whole", "cut")]
    assert_same_checkpoint(*(run / LAST for run in runs))
    assert rows(runs[0]) == rows(runs[1])


def test_a_run_that_steps_limit_goes_on_from_an_epochs_end_with_the_same_rows(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", *UNDRAWN]
    more.append("--trainer.max_steps=6")
    assert fit(recipe, tmp_path / "whole", *more) == 0
    with monkeypatch.context() as patch:
        StopAt(2, signal.SIGTERM).install(patch)
        assert fit(recipe, tmp_path / "cut", *more) == 128 + signal.SIGTERM
    assert fit(recipe, tmp_path / "cut", "--ckpt_path", "last", *more) == 0
    runs = [folder(tmp_path / name) for name in ("whole", "cut")]
    assert_same_checkpoint(*(run / LAST for run in runs))
    assert [row["step"] for row in rows(runs[0]) if row["val/loss"]] == ["1", "3", "5"]
    assert rows(runs[0]) == rows(runs[1])


def test_a_checkpoint_that_is_due_with_a_validation_is_written_a_step_later(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = LastCheckpoint._write

    def watched(callback: LastCheckpoint, trainer: L.Trainer) -> None:
        written.append(trainer.global_step)
        write(callback, trainer)

    monkeypatch.setattr(LastCheckpoint, "_write", watched)
    more = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=1", *UNDRAWN]
    every = ["--checkpoint.every_n_steps=2", "--trainer.val_check_interval=4"]
    assert fit(recipe, tmp_path, *more, *every) == 0
    assert written == [2, 5, 6, STEPS_PER_EPOCH]


def test_the_best_accuracy_is_told_beside_a_checkpoint_of_the_users_own(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss"]
    assert fit(recipe, tmp_path, *SHORT, *own, "--trainer.max_epochs=1") == 0
    accuracy = float(rows(folder(tmp_path))[-1]["val/accuracy"])
    assert f"best val/accuracy {accuracy:.4f}  look" in capsys.readouterr().out


def test_an_interval_longer_than_an_epoch_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(recipe, tmp_path, "--trainer.val_check_interval=10", *UNDRAWN) == 2
    assert capsys.readouterr().err == (
        "error: `val_check_interval` (10) must be less than or equal to the number of the training"
        " batches (9)\n"
        "  give at most so many, or --trainer.check_val_every_n_epoch null to count over epochs\n"
    )


@pytest.mark.parametrize(
    "model",
    [["--model", "LeNet"], ["--model=LeNet"], ["--model.class_path", "LeNet"], ["--config"]],
    ids=["flag", "flag and value", "class_path", "second config"],
)
def test_the_same_command_resumes_a_run_whose_model_is_not_the_first_that_is_named(
    model: list[str], recipe: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("model: {class_path: LeNet, init_args: {activation: relu}}\n")
    more = [*model, str(other)] if model == ["--config"] else [*model, "--model.activation", "relu"]
    recipe.write_text(RECIPE.replace("LeNet", "ResNet").replace("activation: relu", "depth: 18"))
    more += SHORT
    assert fit(recipe, tmp_path, *more, "--trainer.max_epochs", "1") == 0
    assert fit(recipe, tmp_path, *more, "--trainer.max_epochs", "2", "--ckpt_path", "last") == 0
    content = torch.load(folder(tmp_path) / "checkpoints/last.ckpt", weights_only=True)
    assert content["cnn_lightning"]["classifier"].endswith(".LeNet")
    assert content["epoch"] == 1


def test_a_run_goes_on_in_the_time_that_it_has_left(recipe: Path, tmp_path: Path) -> None:
    short = [*SHORT, "--trainer.max_time", "00:01:00:00", "--trainer.max_epochs"]
    assert fit(recipe, tmp_path, *short, "1") == 0
    assert fit(recipe, tmp_path, *short, "2", "--ckpt_path", "last") == 0
    content = torch.load(folder(tmp_path) / LAST, weights_only=True)
    assert content["epoch"] == 1
    assert content["callbacks"]["Timer"]["time_elapsed"]["train"] > 0


def test_a_timer_is_written_with_the_settings(recipe: Path, tmp_path: Path) -> None:
    timed = ["--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:01:00:00"]
    assert fit(recipe, tmp_path, *SHORT, *timed, "--trainer.max_epochs=1") == 0
    (timer,) = read_settings(folder(tmp_path) / "config.yaml")["trainer"]["callbacks"]
    assert timer["init_args"] == {"duration": "00:01:00:00", "interval": "step", "verbose": True}


def test_a_callback_that_the_same_command_appends_again_is_one(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    assert fit(recipe, tmp_path, *SHORT, *watched, "--trainer.max_epochs=1") == 0
    resumed = [*SHORT, "--ckpt_path=last"]
    assert fit(recipe, tmp_path, *resumed, *watched, "--trainer.max_epochs=2") == 0
    assert "changed: trainer.callbacks" not in capsys.readouterr().out
    (watching,) = read_settings(folder(tmp_path) / "config-resume-1.yaml")["trainer"]["callbacks"]
    assert watching["class_path"].endswith(".EarlyStopping")
    # another one comes to those that the run has
    last = folder(tmp_path) / LAST
    start = read_start("fit", ["--ckpt_path", str(last), "--trainer.callbacks+=Timer"])
    assert yaml.safe_load(start.arguments[1])["trainer"]["callbacks"] == [watching]


def test_what_keeps_a_run_from_going_on_is_told(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(recipe, tmp_path, *SHORT, "--trainer.max_epochs=2") == 0
    assert fit(recipe, tmp_path, *SHORT, "--ckpt_path=last", "--trainer.max_epochs=0") == 2
    assert capsys.readouterr().err == (
        "error: the checkpoint is of epoch 2, and trainer.max_epochs is 0\n"
        "  give --trainer.max_epochs above 2\n"
    )
    metrics = folder(tmp_path) / "metrics.csv"
    metrics.write_text(metrics.read_text().replace(",", ";"))  # as a spreadsheet saves it
    assert fit(recipe, tmp_path, *SHORT, "--ckpt_path=last", "--trainer.max_epochs=3") == 2
    assert f"error: {metrics}, line 2 is no row of metrics\n" in capsys.readouterr().err
    (folder(tmp_path) / "checkpoints/best.ckpt").unlink()
    asked = ["--run=small", f"--log_dir={tmp_path}", "--ckpt_path=best"]
    for command, remedy in (
        ("test", "take --ckpt_path last, or check --run and --log_dir"),
        ("fit", "leave --ckpt_path out to start one, or check --run and --log_dir"),
    ):
        assert main([command, *asked]) == 2
        assert remedy in capsys.readouterr().err


def test_another_model_is_not_resumed(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*SHORT, "--trainer.max_epochs=1"]
    assert fit(recipe, tmp_path, *short) == 0
    for flags in (["--model", "ResNet"], ["--model.class_path=ResNet"]):
        assert fit(recipe, tmp_path, *short, "--ckpt_path", "last", *flags) == 2
        assert "is of a LeNet, and ResNet is asked for" in capsys.readouterr().err


def test_another_seed_gives_other_bits(recipe: Path, whole: Path, tmp_path: Path) -> None:
    assert fit(recipe, tmp_path / "other", "--seed_everything", "7") == 0
    contents = [
        torch.load(run / LAST, weights_only=True) for run in (whole, folder(tmp_path / "other"))
    ]
    assert differences(contents[0]["state_dict"], contents[1]["state_dict"])


def test_wrong_data_order_would_be_seen(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnn_lightning.data import ImageDataModule

    with monkeypatch.context() as patch:
        StopAt(4, signal.SIGTERM).install(patch)
        fit(recipe, tmp_path / "cut")
    monkeypatch.setattr(ImageDataModule, "_place", lambda self: (0, 0))
    fit(recipe, tmp_path / "cut", "--ckpt_path", "last")
    contents = [
        torch.load(run / LAST, weights_only=True) for run in (whole, folder(tmp_path / "cut"))
    ]
    assert differences(contents[0]["state_dict"], contents[1]["state_dict"])


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without what the clock decides."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [
            {k: v for k, v in row.items() if k != "images_per_second"}
            for row in csv.DictReader(stream)
        ]


def test_tensorboard_shows_one_unbroken_curve(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        StopAt(STEPS_PER_EPOCH + 3, signal.SIGTERM).install(patch)
        fit(recipe, tmp_path / "cut")
    fit(recipe, tmp_path / "cut", "--ckpt_path", "last")
    cut = folder(tmp_path / "cut")
    assert_same_checkpoint(whole / LAST, cut / LAST)
    assert rows(whole) == rows(cut)
    assert (cut / "config.yaml").is_file()
    assert (cut / "config-resume-1.yaml").is_file()
    assert sorted(path.name for path in (cut / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    for tag in ("train/loss", "val/accuracy", "lr"):
        curves = []
        for run in (whole, cut):
            events = EventAccumulator(str(run))
            events.Reload()
            curves.append([(event.step, event.value) for event in events.Scalars(tag)])
        assert curves[0] == curves[1], tag
        steps = [step for step, _ in curves[1]]
        assert steps == sorted(set(steps)), tag


def test_an_infinite_setting_is_the_same_after_a_resume(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_epoch = (*SHORT, "--trainer.max_epochs", "1")
    assert fit(recipe, tmp_path / "cut", *one_epoch, "--trainer.gradient_clip_val", ".inf") == 0
    assert fit(recipe, tmp_path / "cut", *one_epoch, "--ckpt_path", "last") == 0
    assert "changed" not in capsys.readouterr().out
    settings = yaml.safe_load((folder(tmp_path / "cut") / "config-resume-1.yaml").read_text())
    assert settings["trainer"]["gradient_clip_val"] == math.inf


def test_ctrl_c_before_the_first_step_is_told_apart_from_a_failure(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def press(callback: FeatureCache, *args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureCache, "on_fit_start", press)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert fit(recipe, tmp_path / "cut") == 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_process_leaves_on_a_signal_and_goes_on(
    number: signal.Signals, recipe: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "cnn_lightning", "fit", "--config", str(recipe)]
    command += ["--log_dir", str(tmp_path / "cut"), "--trainer.max_epochs", "400"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = tmp_path / "cut/small/version_0" / LAST
    deadline = time.monotonic() + 90
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "--ckpt_path" in out.splitlines()[-1]
    assert "Traceback" not in err
    done = torch.load(last, weights_only=True)["epoch"]
    again = [*command[:-1], str(done + 2), "--ckpt_path", "last"]
    assert subprocess.run(again, check=False).returncode == 0
    assert not (tmp_path / "cut/small/version_1").exists()


@pytest.mark.parametrize("command", ["fit", "test"])
def test_weights_are_not_held_twice_while_a_run_goes_on(
    command: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    assert fit(recipe, tmp_path, *short, "--trainer.max_epochs=1") == 0
    read: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    load = arguments.load_checkpoint

    def loading(path: Path) -> dict[str, Any]:
        checkpoint = load(path)
        momentum = checkpoint["optimizer_states"][0]["state"][0]["momentum_buffer"]
        read.extend(map(weakref.ref, (*checkpoint["state_dict"].values(), momentum)))
        return checkpoint

    def starting(self: LeNet, *args: object) -> None:
        alive.append(sum(one() is not None for one in read))

    monkeypatch.setattr(arguments, "load_checkpoint", loading)
    monkeypatch.setattr(LeNet, f"on_{'train' if command == 'fit' else command}_start", starting)
    argv = [command, "--config", str(recipe), "--log_dir", str(tmp_path), *short]
    assert main([*argv, "--ckpt_path", "last" if command == "fit" else "best"]) == 0
    assert len(read) > 10
    assert alive == [0]
