"""An epoch's line tells what that epoch logged last."""

import csv
import re
from pathlib import Path

import pytest

from cnn_lightning.cli import main


@pytest.mark.parametrize("every", [4, 50], ids=["between two loggings", "before the first"])
def test_the_line_of_an_epoch_tells_its_last_logging(
    every: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "data": "ShapesDataModule",
        "data.num_images": 100,
        "data.num_test": 20,
        "data.batch_size": 10,
        "data.val_fraction": 0.3,  # seven steps an epoch
        "model": "LeNet",
        "log_dir": tmp_path,
        "run": "told",
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": every,
    }
    assert main(["fit", *(f"--{name}={value}" for name, value in settings.items())]) == 0
    lines = re.findall(
        r"^epoch .* step (\d+) .*train/loss ([\d.]+)  train/accuracy ([\d.]+)",
        capsys.readouterr().out,
        re.MULTILINE,
    )
    with (tmp_path / "told/version_0/metrics.csv").open(newline="") as stream:
        logged = {row["step"]: row for row in csv.DictReader(stream) if row["train/loss"]}
    assert [int(step) for step, _, _ in lines] == [7, 14]
    for step, loss, accuracy in lines:
        row = logged[str(int(step) - 1)]
        assert float(loss) == pytest.approx(float(row["train/loss"]), abs=5e-5)
        assert float(accuracy) == pytest.approx(float(row["train/accuracy"]), abs=5e-5)
