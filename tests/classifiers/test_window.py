"""What training has seen since it was last logged is summed the same, whenever it is read."""

from types import SimpleNamespace
from typing import cast

import lightning as L
import pytest
import torch
from torch import Tensor

from cnn_lightning.classifiers import window
from cnn_lightning.classifiers.window import TrainingWindow

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
    late, early, resumed = TrainingWindow(), TrainingWindow(), TrainingWindow()
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
    assert early.gather(None) == late.gather(None) == resumed.gather(None)


def test_a_window_of_two_processes_goes_on_in_one() -> None:
    seen = TrainingWindow()
    seen.restore([[2.0, 1.0, 2.0], [4.0, 1.0, 1.0]], None)
    assert seen.take_means(ALONE) == (2.0, 2 / 3)
