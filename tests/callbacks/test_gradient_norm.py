"""The logged norm is that of the gradients before they are clipped."""

import csv
from pathlib import Path

import pytest
import torch
from small import UNDRAWN

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.cli import main

LIMIT = 0.01


@pytest.mark.parametrize("limit", [0, LIMIT])
def test_the_norm_before_clipping_is_logged(
    limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[int, float] = {}
    after: list[float] = []

    def norm(classifier: ImageClassifier) -> float:
        gradients = [p.grad.flatten() for p in classifier.parameters() if p.grad is not None]
        return float(torch.cat(gradients).norm())

    def look(self: ImageClassifier, optimizer: torch.optim.Optimizer) -> None:
        before[self.trainer.global_step] = norm(self)

    def look_again(self: ImageClassifier, *args: object) -> None:
        after.append(norm(self))

    monkeypatch.setattr(ImageClassifier, "on_before_optimizer_step", look)
    monkeypatch.setattr(ImageClassifier, "on_train_batch_end", look_again)
    data = ["--data", "ShapesDataModule", "--data.num_images", "300", "--data.num_test", "20"]
    data += ["--data.batch_size", "32"]
    trainer = ["--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "2"]
    trainer += ["--trainer.gradient_clip_val", str(limit), "--trainer.accelerator", "cpu"]
    quiet = ["--feature_maps.every_n_epochs", "0", "--kernels.every_n_epochs", "0"]
    logs = ["--log_dir", str(tmp_path)]
    assert main(["fit", "--model", "LeNet", *data, *trainer, *quiet, *logs]) == 0
    with (tmp_path / "run/version_0/metrics.csv").open(newline="") as stream:
        logged = {
            int(row["step"]): float(row["train/gradient_norm"])
            for row in csv.DictReader(stream)
            if row["train/gradient_norm"]
        }
    assert list(logged) == [1, 3, 5, 7, 8]  # as the training loss, the epoch's end included
    assert logged == pytest.approx({step: before[step] for step in logged})
    assert min(before.values()) > LIMIT
    assert max(after) <= limit * 1.001 if limit else after == list(before.values())


def test_the_last_step_is_logged_where_steps_cut_an_epoch_off(tmp_path: Path) -> None:
    data = ["--data", "ShapesDataModule", "--data.num_images", "100", "--data.num_test", "20"]
    data += ["--data.batch_size", "20"]
    trainer = ["--trainer.max_steps", "3", "--trainer.log_every_n_steps", "2"]
    trainer += ["--trainer.gradient_clip_val", "1", "--trainer.accelerator", "cpu"]
    assert (
        main(["fit", "--model", "LeNet", *data, *trainer, *UNDRAWN, "--log_dir", str(tmp_path)])
        == 0
    )
    with (tmp_path / "run/version_0/metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    logged = {
        name: [row["step"] for row in rows if row[name]]
        for name in ("train/loss", "train/gradient_norm")
    }
    assert logged == {"train/loss": ["1", "2"], "train/gradient_norm": ["1", "2"]}
