"""What training has seen since it was last logged is summed the same, whenever it is read."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from cnn_lightning.classifiers import LeNet, window
from cnn_lightning.classifiers.window import TrainingWindow
from cnn_lightning.data import ShapesDataModule

ALONE = cast(L.Trainer, SimpleNamespace(world_size=1))


def make_batches(count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    batches = []
    for size in range(3, 3 + count):
        labels = torch.randint(0, 4, (size,), generator=draws)
        answers = torch.randint(0, 4, (size,), generator=draws)
        batches.append((torch.rand((), generator=draws), answers, labels))
    return batches


def test_the_means_are_over_images_and_then_it_begins_anew() -> None:
    seen = TrainingWindow()
    seen.add(torch.tensor(1.0, requires_grad=True), torch.tensor([0, 1]), torch.tensor([0, 1]))
    seen.add(torch.tensor(4.0), torch.tensor([0]), torch.tensor([1]))
    assert seen.take_means(ALONE) == (2.0, 2 / 3)
    assert seen.is_empty
    seen.add(torch.tensor(5.0), torch.tensor([0]), torch.tensor([1]))
    assert not seen.is_empty
    assert seen.take_means(ALONE) == (5.0, 0.0)


def test_what_is_kept_unread_has_an_end_and_does_not_change_the_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = make_batches(20)
    late, soon, early, resumed = (TrainingWindow() for _ in range(4))
    for number, batch in enumerate(batches, 1):
        soon.add(*batch)
        assert len(soon._unread) == number % 16
    monkeypatch.setattr(window, "_MAX_UNREAD_ON_CPU", 99)
    for batch in batches:
        late.add(*batch)
    assert len(late._unread) == 20
    monkeypatch.setattr(window, "_MAX_UNREAD", 30)
    for batch in batches:
        early.add(*batch)
        assert early._num_unread <= 30
    for batch in batches:
        rows = resumed.gather(None)  # as a checkpoint between any two steps does
        resumed = TrainingWindow()
        resumed.restore(rows, None)
        resumed.add(*batch)
    sums = late.gather(None)
    assert sums == soon.gather(None) == early.gather(None) == resumed.gather(None)


def test_a_window_of_two_processes_goes_on_in_one() -> None:
    seen = TrainingWindow()
    seen.restore([[2.0, 1.0, 2.0], [4.0, 1.0, 1.0]], None)
    assert seen.take_means(ALONE) == (2.0, 2 / 3)


def test_the_rate_logged_where_steps_cut_an_epoch_off_is_that_of_its_last_step(
    tmp_path: Path,
) -> None:
    logger = CSVLogger(tmp_path)
    trainer = L.Trainer(
        max_epochs=2,
        max_steps=5,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    schedule = {"class_path": "WarmupLinear", "init_args": {"warmup": 0.0}}
    optimizer = {"class_path": "SGD", "init_args": {"lr": 0.1}}
    # 36 training images: four steps an epoch
    data = ShapesDataModule(num_images=40, num_test=20, batch_size=9)
    trainer.fit(LeNet(10, optimizer=optimizer, schedule=schedule), data)
    with Path(logger.log_dir, "metrics.csv").open(newline="") as stream:
        rates = {int(row["step"]): float(row["lr"]) for row in csv.DictReader(stream) if row["lr"]}
    # of five steps, each a fifth lower than the one before
    assert rates == {3: pytest.approx(0.1 * 2 / 5), 4: pytest.approx(0.1 * 1 / 5)}
