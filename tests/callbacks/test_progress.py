from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import RichProgressBar

from cnn_lightning.callbacks import Bar, progress


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
