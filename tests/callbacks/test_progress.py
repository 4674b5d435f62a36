import csv
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import RichProgressBar
from small import UNDRAWN

from cnn_lightning.callbacks import Bar, progress
from cnn_lightning.cli import main


def test_bar_is_drawn_ten_times_a_second_and_at_the_last_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []
    now = 100.0

    def draw(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        drawn.append(number)

    monkeypatch.setattr(RichProgressBar, "on_train_batch_end", draw)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar = Bar()
    for number in range(1000):
        trainer: Any = SimpleNamespace(is_last_batch=number == 999)
        bar.on_train_batch_end(trainer, None, None, None, number)
        now += 0.001
    assert drawn[0] == 0
    assert drawn[-1] == 999
    assert 9 <= len(drawn) <= 11
    assert bar.refresh_rate == 10


def test_the_first_line_after_a_resume_in_mid_epoch_counts_from_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    trainer: Any = SimpleNamespace(
        current_epoch=1, max_epochs=3, global_step=14, callback_metrics={}
    )
    lines = progress.EpochLines()
    now += 60  # data is read, and a network compiled
    lines.on_train_start(trainer, None)
    now += 2
    lines.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "epoch 2/3  step 14  2.0 s\n"


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
    argv = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["fit", *argv, *UNDRAWN]) == 0
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


def test_the_line_of_an_epoch_cut_off_does_not_tell_the_numbers_of_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "data": "ShapesDataModule",
        "data.num_images": 100,
        "data.num_test": 20,
        "data.batch_size": 10,
        "data.val_fraction": 0.3,  # seven steps an epoch
        "model": "LeNet",
        "log_dir": tmp_path,
        "trainer.max_epochs": -1,
        "trainer.max_steps": 17,
        "trainer.log_every_n_steps": 9,
    }
    argv = [*(f"--{name}={value}" for name, value in settings.items()), *UNDRAWN]
    assert main(["fit", *argv]) == 0
    lines = re.findall(r"^epoch.*", capsys.readouterr().out, re.MULTILINE)
    number, speed = r"[\d.]+", r"[\d,]+ images/s"
    trained = f"train/loss {number}  train/accuracy {number}"
    whole = f"{trained}  val/loss {number}  val/accuracy {number}  {speed}  {number} s"
    assert len(lines) == 3
    assert re.fullmatch(f"epoch 1  step 7  {whole}", lines[0])
    assert re.fullmatch(f"epoch 2  step 14  {whole}", lines[1])
    assert re.fullmatch(f"epoch 3  step 17  {number} s", lines[2])


@pytest.mark.parametrize(("columns", "speed"), [("120", r" images/s: [\d,]+"), ("80", "")])
def test_a_terminal_shows_a_line_of_each_epoch_above_a_bar_that_counts_alike(
    columns: str,
    speed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rich._console", None)  # this terminal is for this test alone
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    settings = {
        "data": "ShapesDataModule",
        "data.num_images": 60,
        "data.num_test": 20,
        "data.batch_size": 16,
        "model": "LeNet",
        "log_dir": tmp_path,
        "trainer.max_epochs": 2,
    }
    assert main(["fit", *(f"--{name}={value}" for name, value in settings.items()), *UNDRAWN]) == 0
    told = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().out).replace("\r", "\n")
    lines = re.findall(r"^epoch (\d)/2  step (\d+)  train/loss", told, re.MULTILINE)
    assert lines == [("1", "4"), ("2", "8")]
    assert {"1", "2"} == set(re.findall(r"epoch (\d)/2 +━", told))
    assert "Epoch" not in told
    assert re.search(rf"it/s train/loss: [\d.]+{speed} *$", told, re.MULTILINE)
