"""Images per second stand at the steps at which the loss is logged."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small import UNDRAWN

from cnn_lightning.callbacks import Throughput, throughput
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
    argv = [f"--{name}={value}" for name, value in settings.items()]
    assert main(["fit", *argv, *UNDRAWN]) == 0
    with (tmp_path / "speed/version_0/metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in ("images_per_second", "train/loss"):
        assert [int(row["step"]) for row in rows if row[name]] == steps


def test_a_resume_in_mid_epoch_counts_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = SimpleNamespace(
        world_size=1,
        accumulate_grad_batches=1,
        log_every_n_steps=1,
        num_training_batches=9,
        global_step=5,
        is_last_batch=False,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        loggers=[],
        callback_metrics={},
        progress_bar_metrics={},
    )
    now = 1000.0
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now)
    callback = Throughput()
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]
    now += 2
    batch = SimpleNamespace(labels=torch.zeros(7))
    callback.on_train_batch_end(trainer, None, None, batch, 4)  # type: ignore[arg-type]
    assert float(trainer.callback_metrics["images_per_second"]) == 3.5


@pytest.mark.parametrize(("kind", "expected"), [("cuda", [5, 9]), ("cpu", [])])
def test_what_a_gpu_has_yet_to_do_is_waited_for_at_each_logging(
    kind: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device(kind, 0)
    trainer: Any = SimpleNamespace(
        world_size=1,
        accumulate_grad_batches=1,
        log_every_n_steps=5,
        num_training_batches=9,
        strategy=SimpleNamespace(root_device=device),
        loggers=[],
        callback_metrics={},
        progress_bar_metrics={},
    )
    waited: list[int] = []

    def wait(asked: torch.device) -> None:
        assert asked == device
        waited.append(trainer.global_step)

    monkeypatch.setattr(torch.accelerator, "synchronize", wait)
    throughput = Throughput()
    throughput.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    batch = SimpleNamespace(labels=torch.zeros(7))
    for number in range(9):
        trainer.global_step, trainer.is_last_batch = number + 1, number == 8
        throughput.on_train_batch_end(trainer, None, None, batch, number)  # type: ignore[arg-type]
    assert waited == expected
