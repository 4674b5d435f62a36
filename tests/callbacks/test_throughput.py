"""Images per second stand at the steps at which the loss is logged."""

import csv
from pathlib import Path

import pytest

from cnn_lightning.cli import main


@pytest.mark.parametrize(
    ("accumulated", "every", "steps"),
    [
        (1, 4, [3, 7, 8, 11, 15, 17]),  # 9 steps an epoch, and the last of each is told
        (2, 2, [1, 3, 4, 5, 7, 9]),  # 5 steps, the last of a single batch
        (1, 0, [8, 17]),
    ],
)
def test_the_speed_is_told_where_the_loss_is(
    tmp_path: Path, accumulated: int, every: int, steps: list[int]
) -> None:
    settings = {
        "data": "ShapesDataModule",
        "data.num_images": 100,
        "data.num_test": 20,
        "data.batch_size": 10,
        "model": "LeNet",
        "log_dir": tmp_path,
        "run": "speed",
        "trainer.max_epochs": 2,
        "trainer.limit_val_batches": 1,
        "trainer.accumulate_grad_batches": accumulated,
        "trainer.log_every_n_steps": every,
    }
    assert main(["fit", *(f"--{name}={value}" for name, value in settings.items())]) == 0
    with (tmp_path / "speed/version_0/metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in ("images_per_second", "train/loss"):
        assert [int(row["step"]) for row in rows if row[name]] == steps
