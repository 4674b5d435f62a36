"""Saving time at a step takes nothing away that does something."""

import gc
from types import SimpleNamespace

import lightning as L
import pytest
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer import call

from cnn_lightning.commands.thrift import (
    NoProfiler,
    skip_clipping,
    skip_empty_hooks,
    startup_set_aside,
)


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


def test_a_module_keeps_the_hooks_that_it_fills() -> None:
    class Module(L.LightningModule):
        def on_after_backward(self) -> None:
            pass

    module = Module()
    skip_empty_hooks([module])
    assert callable(module.on_after_backward)
    assert module.on_before_backward is None
    assert callable(module.on_train_epoch_end)  # what is not of a step stays


def test_the_collector_passes_over_what_was_there_and_only_meanwhile() -> None:
    before = gc.get_freeze_count()
    thing: list[object] = []
    with startup_set_aside():
        assert gc.get_freeze_count() > before
        assert not any(one is thing for one in gc.get_objects())
        made: list[object] = []
        assert any(one is made for one in gc.get_objects())
    assert any(one is thing for one in gc.get_objects())
    with pytest.raises(KeyError), startup_set_aside():
        raise KeyError
    assert any(one is thing for one in gc.get_objects())


@pytest.mark.parametrize("clip", [None, 0.5])
def test_clipping_is_passed_over_only_where_none_is_asked_for(clip: float | None) -> None:
    module = L.LightningModule()
    skip_clipping(L.Trainer(gradient_clip_val=clip, logger=False, accelerator="cpu"), module)
    assert callable(module.configure_gradient_clipping) == (clip is not None)


def test_clipping_of_ones_own_is_left_alone() -> None:
    class Own(L.LightningModule):
        def configure_gradient_clipping(self, *args: object, **kwargs: object) -> None:
            pass

    module = Own()
    skip_clipping(L.Trainer(logger=False, accelerator="cpu"), module)
    assert callable(module.configure_gradient_clipping)
