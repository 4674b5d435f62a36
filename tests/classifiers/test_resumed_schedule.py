"""A run resumed with another schedule goes on as if it had had that one from the start."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest

from cnn_lightning.checkpoint_content import Content
from cnn_lightning.checkpoint_io import AtomicCheckpointIO
from cnn_lightning.classifiers import LeNet
from cnn_lightning.commands.resuming import check_resumable
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.files import load_checkpoint

STEPS_PER_EPOCH = 3  # 54 training images in batches of 20


class Recorder(L.Callback):
    """Momentum and learning rate of every step; a checkpoint at the second epoch's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rates: list[tuple[float, float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.rates.append((group["momentum"], group["lr"]))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


def train(
    path: Path, model: dict[str, Any], *, resumes: bool = False, **limits: Any
) -> list[tuple[float, float]]:
    L.seed_everything(0, verbose=False)
    recorder = Recorder(path)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[recorder],
        plugins=AtomicCheckpointIO(),
        **limits,
    )
    data = ShapesDataModule(num_images=60, num_test=20, batch_size=20)
    trainer.fit(LeNet(10, **model), data, ckpt_path=path if resumes else None, weights_only=True)
    return recorder.rates


ONE_CYCLE = spec("OneCycleLR", max_lr=0.1)
COSINE = spec("CosineAnnealingLR", eta_min=0.001)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {}),
        ({"schedule": COSINE}, {"schedule": COSINE}),
        ({"schedule": ONE_CYCLE}, {"schedule": ONE_CYCLE}),
        (
            {"schedule": spec("ExponentialLR", gamma=0.9)},
            {"schedule": spec("ExponentialLR", gamma=0.5)},
        ),
        ({"schedule": ONE_CYCLE}, {"schedule": spec("StepLR", step_size=4)}),
        ({"schedule": COSINE}, {"schedule": spec("WarmupLinear")}),
        ({}, {"schedule": ONE_CYCLE}),
        (
            {"schedule": ONE_CYCLE},
            {"schedule": ONE_CYCLE, "optimizer": spec("SGD", lr=0.3, momentum=0.5)},
        ),
        ({"schedule_interval": "epoch"}, {"schedule_interval": "epoch"}),
        ({}, {"schedule_interval": "epoch"}),
        ({"schedule_interval": "epoch"}, {"schedule_interval": "step"}),
    ],
    ids=[
        *("length of ours", "length of cosine", "length of one cycle", "argument"),
        *("class after one cycle", "class of ours", "class after ours", "optimizer"),
        *("length in epochs", "from steps to epochs", "from epochs to steps"),
    ],
)
def test_what_is_asked_for_anew_holds_as_if_from_the_start(
    before: dict[str, Any], now: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "some.ckpt"
    first = train(path, before, max_epochs=2)
    check_resumable(Content(load_checkpoint(path), path), LeNet(10, **now))
    found = train(path, now, resumes=True, max_epochs=4)
    wanted = train(tmp_path / "other.ckpt", now, max_epochs=4)
    assert found == wanted[2 * STEPS_PER_EPOCH :]
    assert first != wanted[: 2 * STEPS_PER_EPOCH]


def test_an_epoch_that_max_steps_cut_off_is_over(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    train(path, {}, max_steps=STEPS_PER_EPOCH + 1)
    by_epoch: dict[str, Any] = {"schedule_interval": "epoch"}
    found = train(path, by_epoch, resumes=True, max_epochs=4)
    wanted = train(tmp_path / "other.ckpt", by_epoch, max_epochs=4)
    assert found == wanted[2 * STEPS_PER_EPOCH :]  # Lightning makes no more of its steps


def test_what_is_asked_for_as_before_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.ckpt"
    whole = train(path, {"schedule": ONE_CYCLE}, max_epochs=3)
    monkeypatch.setattr("cnn_lightning.classifiers.resumed_schedule._take_steps", None)
    found = train(path, {"schedule": ONE_CYCLE}, resumes=True, max_epochs=3)
    assert found == whole[2 * STEPS_PER_EPOCH :]
    with pytest.raises(TypeError):  # the control: another length takes steps
        train(path, {"schedule": ONE_CYCLE}, resumes=True, max_epochs=4)


def test_a_place_beyond_the_end_of_a_schedule_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    train(path, {"schedule": ONE_CYCLE}, max_epochs=2)
    with pytest.raises(UserError, match="OneCycleLR cannot take the 6 steps that are done"):
        train(path, {"schedule": ONE_CYCLE}, resumes=True, max_epochs=1)


def test_a_run_without_end_needs_a_schedule_that_asks_for_none(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"max_epochs": -1, "max_time": {"seconds": 60}}
    with pytest.raises(UserError, match="WarmupCosine needs the run's length"):
        train(tmp_path / "some.ckpt", {}, **limits)


def test_max_steps_ends_a_schedule_of_epochs(tmp_path: Path) -> None:
    by_epoch: dict[str, Any] = {"schedule_interval": "epoch"}
    wanted = train(tmp_path / "some.ckpt", by_epoch, max_epochs=3)[:8]
    for max_epochs in (-1, 10):
        limits: dict[str, Any] = {"max_epochs": max_epochs, "max_steps": 8}
        assert train(tmp_path / "some.ckpt", by_epoch, **limits) == wanted


def test_a_damaged_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    train(path, {"schedule": ONE_CYCLE}, max_epochs=2)
    content = load_checkpoint(path)
    state = content["lr_schedulers"][0]
    for schedule in (ONE_CYCLE, spec("StepLR", step_size=4)):
        classifier = LeNet(10, schedule=schedule)
        check_resumable(Content(content, path), classifier)
        for place in (10**12, "6"):
            content["lr_schedulers"] = [{**state, "last_epoch": place}]
            with pytest.raises(UserError, match=r"no checkpoint that can be used: .*schedule"):
                check_resumable(Content(content, path), classifier)
        content["lr_schedulers"] = [state]
