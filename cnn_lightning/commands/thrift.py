"""What keeps the Trainer from spending time at every step on things that do nothing."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler
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


def skip_empty_hooks(owners: Iterable[Callback | LightningModule]) -> None:
    """Let Lightning pass over the hooks of a step that a callback or module does not fill.

    It calls whatever is callable, so what is `None` costs nothing.
    """
    for owner in owners:
        base = Callback if isinstance(owner, Callback) else LightningModule
        for hook in _HOOKS:
            if getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)


def skip_clipping(trainer: Trainer, module: LightningModule) -> None:
    """Let Lightning pass over the clipping of gradients where none is asked for."""
    own = type(module).configure_gradient_clipping
    if not trainer.gradient_clip_val and own is LightningModule.configure_gradient_clipping:
        module.configure_gradient_clipping = None  # type: ignore[method-assign, assignment]


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
