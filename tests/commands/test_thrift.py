"""Saving time at a step takes nothing away that does something."""

from types import SimpleNamespace

import lightning as L
import pytest
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer import call

from cnn_lightning.commands.thrift import NoProfiler, skip_empty_hooks


class Counting(L.Callback):
    def __init__(self) -> None:
        self.called = 0

    def on_train_batch_end(self, *args: object) -> None:
        self.called += 1


class Child(Counting):
    pass


@pytest.mark.parametrize("kind", [Counting, Child])
def test_hooks_that_are_filled_are_called_and_others_passed_over(kind: type[Counting]) -> None:
    callback, profiler = kind(), NoProfiler()
    asked: list[str] = []
    profile = profiler.profile

    def noting(name: str) -> object:
        asked.append(name)
        return profile(name)

    profiler.profile = noting  # type: ignore[method-assign, assignment]
    trainer = SimpleNamespace(lightning_module=None, callbacks=[callback], profiler=profiler)

    def walk() -> None:
        for hook in ("on_train_batch_start", "on_before_backward", "on_train_batch_end"):
            call._call_callback_hooks(trainer, hook, None, None, None)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:  # the hooks as Lightning has them, as a control
        patch.setattr(L.Callback, "on_before_backward", lambda *args: None)
        patch.setattr(L.Callback, "on_train_batch_start", lambda *args: None)
        walk()
    assert (len(asked), callback.called) == (3, 1)
    skip_empty_hooks([callback])
    walk()
    assert (len(asked), callback.called) == (4, 2)
    callback.on_train_start(trainer, None)  # type: ignore[arg-type]  # what is not of a step stays


def test_the_profiler_that_measures_nothing_is_one_that_lightning_takes() -> None:
    profiler = NoProfiler()
    assert isinstance(profiler, PassThroughProfiler)
    with profiler.profile("one"), profiler.profile("other"):
        pass
    with pytest.raises(KeyError), profiler.profile("failing"):
        raise KeyError
