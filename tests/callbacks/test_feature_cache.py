"""Kept features stand for the images that training sees; see `test_transfer.py` for whole runs."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from cnn_lightning.augment import Augmentation
from cnn_lightning.callbacks import FeatureCache
from cnn_lightning.classifiers import ImageClassifier, LeNet
from cnn_lightning.data import Batch, Features, ShapesDataModule
from cnn_lightning.runs import RunFolder


class Listed(ShapesDataModule):
    """Holds out the images that it is told to, and keeps the features that it is given."""

    def __init__(self, held_out: range = range(10)) -> None:
        super().__init__(num_images=50, num_test=10, batch_size=20, augment="none")
        self.held_out = held_out
        self.given: dict[str, Tensor] = {}

    def stage_indices(self, stage: str) -> Tensor:
        is_val = torch.zeros(50, dtype=torch.bool)
        is_val[list(self.held_out)] = True
        return (is_val if stage == "val" else ~is_val).nonzero().flatten()

    def use_features(self, stage: Any, features: Features) -> None:
        self.given[stage] = features.rows
        super().use_features(stage, features)


def fit(classifier: ImageClassifier, data: ShapesDataModule, tmp_path: Path) -> None:
    cache = FeatureCache()
    cache.folder = RunFolder(tmp_path / "version_0")
    L.Trainer(
        max_epochs=1,
        callbacks=[cache],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(classifier, datamodule=data)


def test_other_rows_are_computed_where_a_split_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = LeNet(10, freeze="backbone")
    for held_out, found in ((range(10), 0), (range(30, 40), 0), (range(10), 2)):
        fit(classifier, data := Listed(held_out), tmp_path)
        assert capsys.readouterr().out.count("taking features") == found
        assert data.given.keys() == {"train", "val"}
        with torch.no_grad():
            wanted = classifier.network.backbone(data.prepare(data.load("train")[0]))
        for stage, rows in data.given.items():
            used = data.stage_indices(stage)
            torch.testing.assert_close(rows[used], wanted[used])


class Inverted(Listed):
    def augment_images(self, images: Tensor, draws: Any, **kwargs: Any) -> Tensor:
        return 255 - images


class Flipped(Listed):
    def augmentation(self) -> Augmentation:
        return Augmentation("random")


class Darkened(Listed):
    def prepare_training(self, batch: Batch, *args: Any) -> Batch:
        return super().prepare_training(batch._replace(images=batch.images // 2), *args)


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Inverted, "augment_images"), (Flipped, "augmentation"), (Darkened, "prepare_training")],
)
def test_training_images_that_a_subclass_changes_are_computed_every_time(
    kind: type[Listed], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(LeNet(10, freeze="backbone"), data := kind(), tmp_path)
    assert f"{kind.__name__} changes them by its own {method}\n" in capsys.readouterr().out
    assert data.given.keys() == {"val"}
