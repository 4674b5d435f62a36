"""Two processes see what one sees."""

import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from killing import run_pair
from small import UNDRAWN

from cnn_lightning.cli import main

SCRIPT = """
import sys
from pathlib import Path

import lightning as L

from cnn_lightning import LeNet, ShapesDataModule


class Record(L.Callback):
    def __init__(self, folder):
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        name = f"{trainer.current_epoch}-{trainer.global_rank}.txt"
        with (self.folder / name).open("a") as stream:
            stream.write("".join(f"{index}\\n" for index in batch.indices.tolist()))


if __name__ == "__main__":
    L.seed_everything(0)
    data = ShapesDataModule(num_images=301, num_test=20, batch_size=32)
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy=sys.argv[1], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, callbacks=[Record(sys.argv[2])],
    )
    trainer.fit(LeNet(10), data)
"""


@pytest.mark.slow  # tests/data/test_sampling.py has it without processes
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp"])
def test_each_image_is_seen_once_per_epoch(strategy: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    (tmp_path / "seen").mkdir()
    subprocess.run(
        [sys.executable, str(script), strategy, str(tmp_path / "seen")], check=True, timeout=300
    )
    orders = []
    for epoch in (0, 1):
        parts = [(tmp_path / f"seen/{epoch}-{rank}.txt").read_text().split() for rank in (0, 1)]
        seen = Counter(parts[0] + parts[1])
        assert len(seen) == sum(seen.values())
        orders.append(parts)
    assert set(orders[0][0] + orders[0][1]) == set(orders[1][0] + orders[1][1])
    assert orders[0] != orders[1]


def launch(argv: list[str], out: Path) -> list[int]:
    """Run a command line in a process that starts the second one itself."""
    command = [sys.executable, "-m", "cnn_lightning", *argv]
    return [subprocess.run(command, check=False, timeout=300).returncode, 0]


@pytest.mark.parametrize(
    ("command", "run_two"),
    [pytest.param("validate", launch, marks=pytest.mark.slow), ("test", run_pair)],
    ids=["validate", "test"],
)
def test_two_processes_report_and_draw_what_one_does(
    command: str, run_two: Callable[[list[str], Path], list[int]], tmp_path: Path
) -> None:
    data = ["--data", "ShapesDataModule", "--data.num_images", "301", "--data.num_test", "51"]
    logs = ["--log_dir", str(tmp_path / "logs"), "--trainer.accelerator", "cpu"]
    fit = ["fit", "--model", "LeNet", *data, *logs, "--trainer.max_epochs", "1", "--run", "one"]
    assert main([*fit, *UNDRAWN]) == 0
    run = tmp_path / "logs/one/version_0"
    argv = [command, "--ckpt_path", str(run / "checkpoints/last.ckpt"), *logs]
    argv += ["--trainer.strategy", "auto", "--data.eval_batch_size", "10", "--trainer.devices"]
    assert main([*argv, "1"]) == 0
    alone = results(run)
    assert run_two([*argv, "2"], tmp_path / "two.txt") == [0, 0]
    together = results(run)
    assert alone.keys() == together.keys()
    assert {"validate": "val/loss", "test": "test/calibration_error"}[command] in alone
    assert ("test_confusion_matrix.png" in alone) == (command == "test")
    for name, value in alone.items():
        if "accuracy" in name or isinstance(value, bytes):
            assert value == together[name], name
        else:  # float32 sums in another order
            assert float(value) == pytest.approx(float(together[name]), rel=1e-4), name


def results(run: Path) -> dict[str, str | bytes]:
    """The last row of metrics.csv, and the confusion matrix, which is then taken away."""
    with (run / "metrics.csv").open(newline="") as stream:
        row: dict[str, str | bytes] = {
            k: v for k, v in list(csv.DictReader(stream))[-1].items() if v
        }
    picture = run / "figures/test_confusion_matrix.png"
    if picture.exists():
        row[picture.name] = picture.read_bytes()
        picture.unlink()
    return row
