"""What keeps the Trainer from spending time at every step on things that do nothing."""

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops import training_epoch_loop
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer import call
from lightning.pytorch.trainer import trainer as trainer_module
from lightning.pytorch.trainer.connectors import data_connector
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from typing_extensions import override

# what Lightning calls at every step of training
_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
# where Lightning looks at every step what an object's own code says, which stays as it is
_LOOKS = (
    (training_epoch_loop, "is_param_in_hook_signature"),
    (trainer_module, "is_overridden"),
    (data_connector, "is_overridden"),
)


class NoProfiler(PassThroughProfiler):
    """Measures nothing, and takes a tenth of the time that its parent takes for that.

    Lightning asks its profiler around each hook, some hundred times a step.
    """

    _nothing = nullcontext("")

    @override
    def profile(  # type: ignore[override]  # a context manager too, but no generator
        self, action_name: str
    ) -> AbstractContextManager[str]:
        return self._nothing


class LeanTrainer(Trainer):
    """Lightning's Trainer, with less to look up at every step."""

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy, which is settled before there is a Trainer to ask."""
        return super().strategy

    @property
    def lightning_module(self) -> LightningModule:
        """The module that is trained, which its parent asks the strategy for."""
        return self.strategy._lightning_module  # type: ignore[return-value]  # `None` before `fit`

    @property
    def training(self) -> bool:
        """Whether it trains right now; its parent compares names of stages, letter case aside."""
        return self.state.stage is RunningStage.TRAINING

    @training.setter
    def training(self, value: bool) -> None:
        Trainer.training.fset(self, value)  # type: ignore[attr-defined]  # a property


class PlainResult(ClosureResult):
    """The loss of a training step, as it is where each step of the optimizer takes one batch.

    Its parent divides it by their number first, which the backward pass does again, and copies it.
    """

    @override
    def _clone_loss(self) -> None:
        self.loss = None if self.closure_loss is None else self.closure_loss.detach()

    @override
    @classmethod
    def from_training_step_output(
        cls, training_step_output: STEP_OUTPUT, normalize: int = 1
    ) -> ClosureResult:
        if normalize == 1 and isinstance(training_step_output, Tensor):
            return cls(training_step_output)
        return ClosureResult.from_training_step_output(training_step_output, normalize)


class StepHooks:
    """Lightning's ways of calling hooks, without what does nothing in them.

    At each of six hooks of a step Lightning goes through all callbacks, most of which have nothing
    there; here those alone are called that fill it. And each time it tells its log and its
    profiler, which is skipped where nobody listens.

    Args:
        trainer: Whose hooks; its callbacks may change as it runs, what each of them fills may not.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._callbacks: list[Callback] | None = None  # not looked up yet; there may be none
        self._filled: dict[str, list[Callable[..., None]]] = {}
        self._replaced: dict[str, Callable[..., Any]] = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Take the place of Lightning's ways, unless its profiler measures or its log is read.

        Nothing changes with a Lightning that has other ways.
        """
        profiler = self._trainer.profiler  # type: ignore[attr-defined]  # Lightning's own
        own = {
            "_call_callback_hooks": self._call_callbacks,
            "_call_lightning_module_hook": self._call_module,
            "_call_strategy_hook": self._call_strategy,
        }
        self._replaced = {name: vars(call)[name] for name in own if name in vars(call)}
        is_heard = not isinstance(profiler, NoProfiler) or call.log.isEnabledFor(logging.DEBUG)
        if is_heard or self._replaced.keys() != own.keys():
            yield
            return
        vars(call).update(own)
        try:
            yield
        finally:
            vars(call).update(self._replaced)

    def _call_callbacks(self, trainer: Trainer, hook_name: str, *args: Any, **kwargs: Any) -> None:
        if hook_name not in _HOOKS or trainer is not self._trainer:
            self._replaced["_call_callback_hooks"](trainer, hook_name, *args, **kwargs)
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's own
        if self._callbacks != callbacks:
            self._look_up(callbacks)
        if not (hooks := self._filled[hook_name]):
            return
        module = trainer.lightning_module
        state = module.__dict__  # torch would look whether the name is that of a parameter
        before, state["_current_fx_name"] = state["_current_fx_name"], hook_name
        for hook in hooks:
            hook(trainer, module, *args, **kwargs)
        state["_current_fx_name"] = before

    def _look_up(self, callbacks: list[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._filled = {
            name: [getattr(one, name) for one in callbacks if _fills(one, name, Callback)]
            for name in _HOOKS
        }

    def _call_module(
        self,
        trainer: Trainer,
        hook_name: str,
        *args: Any,
        pl_module: LightningModule | None = None,
        **kwargs: Any,
    ) -> Any:
        if trainer is not self._trainer:
            whole = self._replaced["_call_lightning_module_hook"]
            return whole(trainer, hook_name, *args, pl_module=pl_module, **kwargs)
        module = pl_module or trainer.lightning_module
        hook = getattr(module, hook_name)
        return _call_hook(module, hook, hook_name, args, kwargs) if callable(hook) else None

    def _call_strategy(self, trainer: Trainer, hook_name: str, *args: Any, **kwargs: Any) -> Any:
        if trainer is not self._trainer:
            return self._replaced["_call_strategy_hook"](trainer, hook_name, *args, **kwargs)
        hook = getattr(trainer.strategy, hook_name)
        module = trainer.lightning_module
        return _call_hook(module, hook, hook_name, args, kwargs) if callable(hook) else None


def _call_hook(
    module: LightningModule, hook: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a hook, which the module then knows to be the current one."""
    state = module.__dict__  # torch would look whether the name is that of a parameter
    before, state["_current_fx_name"] = state["_current_fx_name"], name
    result = hook(*args, **kwargs)
    state["_current_fx_name"] = before
    return result


def skip_empty_hooks(module: LightningModule) -> None:
    """Let Lightning pass over the hooks of a step that a module does not fill.

    It calls whatever is callable, so what is `None` costs little.
    """
    for hook in _HOOKS:
        if not _fills(module, hook, LightningModule):
            setattr(module, hook, None)


def _fills(owner: object, hook: str, base: type) -> bool:
    """Whether a hook of an owner is more than the empty one of a class that it comes from."""
    own = getattr(owner, hook)
    return callable(own) and getattr(own, "__func__", own) is not getattr(base, hook)


def skip_clipping(trainer: Trainer, module: LightningModule) -> None:
    """Let Lightning pass over the clipping of gradients where none is asked for."""
    own = type(module).configure_gradient_clipping
    if not trainer.gradient_clip_val and own is LightningModule.configure_gradient_clipping:
        module.configure_gradient_clipping = None  # type: ignore[method-assign, assignment]


def keep_loss_plain(trainer: Trainer) -> None:
    """Let Lightning take the loss of a step as it is, where it would divide it by one."""
    trainer.fit_loop.epoch_loop.automatic_optimization.output_result_cls = PlainResult


@contextmanager
def looks_remembered() -> Iterator[None]:
    """Let Lightning look once, and not at every step, at what an object's code says.

    That is which arguments a training step takes and which methods are a class's own. Nothing
    changes with a Lightning that looks in another way.
    """
    found = [(vars(module), name) for module, name in _LOOKS if hasattr(module, name)]
    before = [names[name] for names, name in found]
    for names, name in found:
        names[name] = cache(names[name])
    try:
        yield
    finally:
        for (names, name), look in zip(found, before, strict=True):
            names[name] = look


@contextmanager
def startup_set_aside() -> Iterator[None]:
    """Let Python's garbage collector leave alone what exists by now.

    It goes through all objects again and again while training makes new ones, and most of them,
    half a million from imports, stay to the end.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
