"""Freed memory is kept from the first step to the end of training, and given back around it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnn_lightning import memory
from cnn_lightning.callbacks import FeatureMaps, KeptMemory
from cnn_lightning.callbacks.epoch_pictures import images_at_once
from cnn_lightning.callbacks.kept_memory import kept_as_in_training
from cnn_lightning.classifiers import VGG16, ImageClassifier, LeNet
from cnn_lightning.cli import main
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.memory import can_keep_memory, memory_kept

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def settable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory.SET_UP_BY:
        monkeypatch.delenv(name, raising=False)
    if not can_keep_memory(CPU):
        pytest.skip("this system has another C library than glibc")


def state() -> str:
    names = {id(memory._KEEP): "kept", id(memory._GIVE_BACK): "given back"}
    return names.get(id(memory._in_force[-1]), "usual")


class Line(L.LightningModule):
    def __init__(self, at_step: Callable[[], object]) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.at_step = at_step

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        self.at_step()
        return F.mse_loss(self.layer(batch), batch[:, :1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Notes(L.Callback):
    """What holds where pictures of the untrained network are drawn, and when all is over."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with kept_as_in_training(trainer):
            self.found.append(state())
        self.found.append(state())


def train(callbacks: list[L.Callback], at_step: Callable[[], object]) -> None:
    L.Trainer(
        max_epochs=1,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Line(at_step), torch.rand(3, 4, 2))


def test_memory_is_kept_from_the_first_step_to_the_end() -> None:
    notes = Notes()
    with memory_kept(CPU, keep=False):
        train([notes, KeptMemory()], lambda: notes.found.append(state()))
        notes.found.append(state())
    assert notes.found == ["kept", "given back", *["kept"] * 3, "given back"]
    assert state() == "usual"


def test_nothing_is_kept_without_the_callback() -> None:
    notes = Notes()
    train([notes], lambda: notes.found.append(state()))
    assert set(notes.found) == {"usual"}


def test_a_failure_in_training_ends_it() -> None:
    def fail() -> None:
        assert state() == "kept"
        raise RuntimeError("no step")

    with memory_kept(CPU, keep=False):
        with pytest.raises(RuntimeError, match="no step"):
            train([KeptMemory()], fail)
        assert state() == "given back"


def test_an_outer_block_ends_those_within() -> None:
    with memory_kept(CPU, keep=False):
        inner = memory_kept(CPU)
        inner.__enter__()
        assert state() == "kept"
    assert state() == "usual"
    inner.__exit__(None, None, None)
    assert state() == "usual"


@pytest.mark.parametrize("keep", [True, False])
def test_fit_gives_memory_back_before_and_after_the_steps(
    keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, str]] = []
    draw, step, predict = FeatureMaps.draw, ImageClassifier.training_step, LeNet.predict_images

    def drawing(self: FeatureMaps, trainer: L.Trainer, module: Any, epoch: int) -> Any:
        found.append((f"epoch {epoch}", state()))
        return draw(self, trainer, module, epoch)

    def stepping(self: ImageClassifier, *args: Any) -> Any:
        found.append(("step", state()))
        return step(self, *args)

    def predicting(self: ImageClassifier, images: torch.Tensor, *, batch_size: int) -> Any:
        found.append((f"{batch_size} predictions", state()))
        return predict(self, images, batch_size=batch_size)

    monkeypatch.setattr(FeatureMaps, "draw", drawing)
    monkeypatch.setattr(ImageClassifier, "predict_images", predicting)
    monkeypatch.setattr(ImageClassifier, "training_step", stepping)
    data = ["--data=ShapesDataModule", "--data.num_images=60", "--data.num_test=10"]
    argv = ["fit", *data, "--model=LeNet", "--trainer.accelerator=cpu", "--trainer.max_steps=2"]
    kept = f"--keep_memory={str(keep).lower()}"
    assert main([*argv, "--data.batch_size=20", f"--log_dir={tmp_path}", kept]) == 0
    training = "kept" if keep else "given back"
    assert found == [
        ("epoch 0", "given back"),
        *[("step", training)] * 2,
        ("49 predictions", "given back"),
        ("epoch 1", training),
    ]
    assert state() == "usual"


@pytest.mark.parametrize(("size", "most"), [(None, 49), (100, 5), (224, 1), (500, 1)])
def test_large_images_are_looked_at_one_by_one(size: int | None, most: int) -> None:
    classifier = VGG16(num_classes=10, image_size=size)
    classifier.adapt_to(ShapesDataModule(num_images=20, num_test=10))
    assert images_at_once(classifier) == most
