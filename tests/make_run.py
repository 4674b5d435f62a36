"""Run folders as `fit` leaves them, without the training."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from cnn_lightning.runs import RunFolder

Table = Sequence[dict[str, Any]]


def write_metrics(folder: RunFolder, rows: Table) -> RunFolder:
    names = list(dict.fromkeys(name for row in rows for name in row))
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.metrics.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def make_run(
    path: Path,
    accuracies: Sequence[float] = (0.5, 0.75),
    *,
    settings: dict[str, Any] | None = None,
    at_the_end: dict[str, float] | None = None,
) -> RunFolder:
    """A run of ten steps an epoch; `at_the_end` are more metrics of every epoch's last step."""
    folder = write_metrics(
        RunFolder(path),
        [
            {
                "step": 10 * epoch + 9,
                "epoch": epoch,
                "train/loss": 2 / (epoch + 1),
                "val/accuracy": accuracy,
                "images_per_second": 1000 + epoch,
                **(at_the_end or {}),
            }
            for epoch, accuracy in enumerate(accuracies)
        ],
    )
    folder.config.write_text(yaml.safe_dump(settings or {"model": {"class_path": "LeNet"}}))
    folder.checkpoints.mkdir()
    # what batch norm has: two parameters of 3 numbers, and three buffers
    norm = torch.nn.BatchNorm2d(3).state_dict()
    state = {f"network.norm.{name}": value for name, value in norm.items()}
    torch.save({"state_dict": state}, folder.checkpoints / "best.ckpt")
    return folder
