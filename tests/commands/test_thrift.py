"""Saving time at a step takes nothing away that does something."""

import contextlib
import gc
import logging
from collections import OrderedDict
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer import trainer as trainer_module
from lightning.pytorch.trainer.connectors import data_connector
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from cnn_lightning.commands.arguments import read_start
from cnn_lightning.commands.benchmarking.training_step import MeasuredCLI
from cnn_lightning.commands.thrift import (
    LeanTrainer,
    NoProfiler,
    PlainResult,
    StepHooks,
    keep_loss_plain,
    looks_remembered,
    skip_clipping,
    skip_empty_hooks,
    startup_set_aside,
)

HOOKS = {  # of a step, and how many arguments they have
    "on_train_batch_start": 2,
    "on_before_zero_grad": 1,
    "on_before_backward": 1,
    "on_after_backward": 0,
    "on_before_optimizer_step": 1,
    "on_train_batch_end": 3,
}


Note = tuple[object, ...]


class Noting(L.Callback):
    """Notes the hooks it is called in, and what Lightning then takes for the current one."""

    def __init__(self, notes: list[Note]) -> None:
        self.notes = notes

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: int) -> None:
        self.notes.append(("end", self, module._current_fx_name, *args))

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.notes.append(("start", self, module._current_fx_name))


class Module(L.LightningModule):
    """Notes as well, and has no hook where a step of it has nothing to do."""

    on_before_backward = None  # type: ignore[assignment]  # Lightning passes over it

    def __init__(self, notes: list[Note]) -> None:
        super().__init__()
        self.notes = notes

    def on_after_backward(self) -> None:
        self.notes.append(("after", self._current_fx_name))

    def on_train_batch_start(self, batch: int, batch_idx: int) -> int:
        self.notes.append(("start", self._current_fx_name, batch, batch_idx))
        return -1

    def training_step(self, batch: int, batch_idx: int) -> int:
        self.notes.append(("step", self._current_fx_name, batch, batch_idx))
        return batch + batch_idx


class Child(Noting):
    pass


class Silent(Noting):
    on_train_batch_end = None  # type: ignore[assignment]  # Lightning passes over it


def make_trainer(
    callbacks: list[L.Callback], profiler: object = None, notes: list[Note] | None = None
) -> L.Trainer:
    trainer = LeanTrainer(
        callbacks=callbacks,
        profiler=profiler or NoProfiler(),  # type: ignore[arg-type]
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module([] if notes is None else notes)
    trainer.strategy.connect(module)
    module._current_fx_name = "what was before"
    return trainer


def walk(trainer: L.Trainer) -> list[object]:
    """Call hooks of all kinds as Lightning does; returns what they give."""
    given: list[object] = []
    for hook, count in {**HOOKS, "on_train_start": 0}.items():
        call._call_callback_hooks(trainer, hook, *range(count))
        assert trainer.lightning_module._current_fx_name == "what was before"
    for hook, args in (("on_train_batch_start", (1, 2)), ("on_after_backward", ())):
        given.append(call._call_lightning_module_hook(trainer, hook, *args))
    given.append(call._call_lightning_module_hook(trainer, "on_before_backward", 1))
    other = Module(trainer.lightning_module.notes)
    given.append(call._call_lightning_module_hook(trainer, "training_step", 7, 0, pl_module=other))
    given.append(call._call_strategy_hook(trainer, "training_step", 3, batch_idx=4))
    assert trainer.lightning_module._current_fx_name == "what was before"
    return given


def test_hooks_are_called_as_lightning_does_it() -> None:
    notes: list[Note] = []
    instance = LambdaCallback(on_train_batch_end=lambda *args: notes.append(("lambda", *args[2:])))
    callbacks = [Noting(notes), L.Callback(), Child(notes), Silent(notes), instance]
    trainer = make_trainer(callbacks, notes=notes)
    given, before = walk(trainer), dict(vars(call))
    wanted = list(notes)
    assert given == [-1, None, None, 7, 7]
    assert len(wanted) == 10
    with StepHooks(trainer).in_place():
        assert dict(vars(call)) != before
        for _ in range(2):
            notes.clear()
            assert walk(trainer) == given
            assert notes == wanted
        added = Noting(notes)
        trainer.callbacks.append(added)  # type: ignore[attr-defined]
        notes.clear()
        walk(trainer)
        assert notes[:4] == [*wanted[:3], ("end", added, "on_train_batch_end", 0, 1, 2)]
        other = make_trainer(callbacks, profiler := SimpleProfiler(), notes)  # meanwhile
        notes.clear()
        assert walk(other) == given
        assert notes == wanted
        kinds = {action.partition("]")[0] for action in profiler.recorded_durations}
        assert kinds == {"[Callback", "[LightningModule", "[Strategy"}
    assert dict(vars(call)) == before


def test_callbacks_may_be_none_for_a_while() -> None:
    notes: list[Note] = []
    trainer = make_trainer([], notes=notes)
    given = walk(trainer)
    with StepHooks(trainer).in_place():
        assert walk(trainer) == given  # as Lightning's tuner has it, which takes them away
        trainer.callbacks.append(added := Noting(notes))  # type: ignore[attr-defined]
        notes.clear()
        walk(trainer)
        assert notes[0] == ("end", added, "on_train_batch_end", 0, 1, 2)
        trainer.callbacks.clear()  # type: ignore[attr-defined]
        assert walk(trainer) == given


def test_callbacks_that_have_nothing_at_a_step_are_not_asked_again() -> None:
    asked: list[str] = []

    class Watched(L.Callback):
        def __getattribute__(self, name: str) -> object:
            asked.extend([name] if name in HOOKS else [])
            return super().__getattribute__(name)

    trainer = make_trainer([Watched()])
    walk(trainer)
    assert asked == list(HOOKS)  # as a control: Lightning itself asks
    with StepHooks(trainer).in_place():
        walk(trainer)
        asked.clear()
        walk(trainer)
    assert not asked


@pytest.mark.parametrize("why", ["profiler", "log", "another Lightning"])
def test_lightnings_own_way_stays_where_it_is_needed(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer([], SimpleProfiler() if why == "profiler" else None)
    if why == "log":
        monkeypatch.setattr(call.log, "level", logging.DEBUG)
        call.log.manager._clear_cache()  # type: ignore[attr-defined]  # of who is enabled
    if why == "another Lightning":
        monkeypatch.delattr(call, "_call_strategy_hook")
    before = dict(vars(call))
    with StepHooks(trainer).in_place():
        assert dict(vars(call)) == before
    call.log.manager._clear_cache()  # type: ignore[attr-defined]


def test_a_failing_hook_leaves_lightning_as_it_was() -> None:
    trainer, before = make_trainer([]), dict(vars(call))
    with pytest.raises(KeyError), StepHooks(trainer).in_place():
        raise KeyError
    assert dict(vars(call)) == before


def test_the_trainer_answers_as_lightnings_does() -> None:
    trainer = make_trainer([])
    assert trainer.strategy is trainer._accelerator_connector.strategy
    assert trainer.lightning_module is L.Trainer.lightning_module.fget(trainer)  # type: ignore[attr-defined]
    for stage in (None, *RunningStage):
        trainer.state.stage = stage
        assert trainer.training == L.Trainer.training.fget(trainer)  # type: ignore[attr-defined]
    trainer.training = True
    assert trainer.state.stage is RunningStage.TRAINING
    trainer.training = False
    assert trainer.state.stage is None


def test_the_trainer_has_no_module_before_it_is_given_one() -> None:
    trainer = LeanTrainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert trainer.lightning_module is None


@pytest.mark.parametrize("remembers", [True, False])
def test_a_signature_is_looked_at_once(remembers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Plain(L.LightningModule):
        def training_step(self, batch: int) -> None: ...

    def look(step: object, name: str, *, min_args: int) -> bool:
        asked.append(step)
        return whole(step, name, min_args=min_args)

    whole = training_epoch_loop.is_param_in_hook_signature
    monkeypatch.setattr(training_epoch_loop, "is_param_in_hook_signature", look)
    loop = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit_loop
    both, one = Module([]), Plain()
    with looks_remembered() if remembers else contextlib.nullcontext():
        for module in (both, one, both, one):
            loop.trainer.strategy.connect(module)
            taken = loop.epoch_loop._build_kwargs(OrderedDict(), "images", 3)
            assert list(taken.values()) == (["images", 3] if module is both else ["images"])
    times = 1 if remembers else 2
    assert asked == [both.training_step, one.training_step] * times
    assert training_epoch_loop.is_param_in_hook_signature is look


@pytest.mark.parametrize("remembers", [True, False])
def test_whether_there_is_validation_is_looked_up_once(
    remembers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Validating(L.LightningModule):
        def validation_step(self, batch: int) -> None: ...

        def val_dataloader(self) -> list[int]:
            return [1]

    def look(method: str, instance: object, **kwargs: object) -> bool:
        asked.append((method, instance))
        return whole(method, instance, **kwargs)

    whole = data_connector.is_overridden
    for module in (data_connector, trainer_module):
        monkeypatch.setattr(module, "is_overridden", look)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    does, does_not = Validating(), L.LightningModule()
    asked.clear()
    with looks_remembered() if remembers else contextlib.nullcontext():
        for module in (does, does_not, does, does_not):
            trainer.strategy.connect(module)
            source.instance, source.name = module, "val_dataloader"
            assert trainer.enable_validation is (module is does)
            trainer.limit_val_batches = 0
            assert not trainer.enable_validation
            trainer.limit_val_batches = 1
    assert len(asked) == (3 if remembers else 12)
    assert data_connector.is_overridden is trainer_module.is_overridden is look


def test_another_lightning_looks_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(training_epoch_loop, "is_param_in_hook_signature")
    before = dict(vars(training_epoch_loop))
    with looks_remembered():
        assert dict(vars(training_epoch_loop)) == before


class Scaling(L.LightningModule):
    """Minimises w·x for a weight w of 1, and keeps what callbacks are told of its steps."""

    def __init__(self, *, in_mapping: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.in_mapping = in_mapping
        self.nodes: list[object] = []
        self.told: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> object:
        loss = self.weight * batch.sum()
        return {"loss": loss, "seen": batch_idx} if self.in_mapping else loss

    def on_before_backward(self, loss: torch.Tensor) -> None:
        self.nodes.append(loss.grad_fn and loss.grad_fn.name())

    def on_train_batch_end(self, outputs: dict[str, torch.Tensor], *args: object) -> None:  # type: ignore[override]
        self.told.append(outputs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.125)


@pytest.mark.parametrize("in_mapping", [False, True])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_plain_loss_trains_as_lightnings_does(accumulated: int, in_mapping: bool) -> None:
    modules = []
    for plain in (False, True):
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            accumulate_grad_batches=accumulated,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if plain:
            keep_loss_plain(trainer)
        modules.append(module := Scaling(in_mapping=in_mapping))
        trainer.fit(module, DataLoader(torch.arange(1.0, 5.0), batch_size=1))
    whole, spared = modules
    assert spared.weight == whole.weight != 1
    assert len(spared.told) == 4
    for ours, theirs in zip(spared.told, whole.told, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["loss"] == theirs["loss"]
        assert not ours["loss"].requires_grad
    assert set(whole.nodes) == {"DivBackward0"}
    is_spared = accumulated == 1 and not in_mapping
    assert set(spared.nodes) == {"MulBackward0" if is_spared else "DivBackward0"}


def test_fit_takes_a_loss_as_it_is(tmp_path: Path) -> None:
    data = ["--data", "ShapesDataModule", "--data.num_images", "40", "--data.num_test", "10"]
    argv = [*data, "--model", "LeNet", "--log_dir", str(tmp_path)]
    trainer = MeasuredCLI(read_start("fit", argv), runs=False).trainer
    assert trainer.fit_loop.epoch_loop.automatic_optimization.output_result_cls is PlainResult


def test_a_step_may_still_be_skipped_and_must_not_give_something_else() -> None:
    assert PlainResult.from_training_step_output(None).asdict() == {"loss": None}
    with pytest.raises(MisconfigurationException, match="must return a Tensor"):
        PlainResult.from_training_step_output("nothing")  # type: ignore[arg-type]


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
    skip_empty_hooks(module)
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
