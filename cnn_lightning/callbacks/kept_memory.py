"""Freed memory that is kept for the next step, from the first one on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import lightning as L
from typing_extensions import override

from cnn_lightning.memory import memory_kept


class KeptMemory(L.Callback):
    """Lets each step on a CPU have the memory that the last one freed: see `memory_kept`.

    To be the last of the callbacks: what comes before the first step, such as pictures of the
    untrained network, needs blocks of other sizes than a step, which would wait for ever.
    """

    def __init__(self) -> None:
        self._open = ExitStack()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open.enter_context(memory_kept(trainer.strategy.root_device))

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._open.close()

    @override
    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._open.close()


@contextmanager
def kept_as_in_training(trainer: L.Trainer) -> Iterator[None]:
    """Keep freed memory inside the block, if training will."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's own
    with ExitStack() as opened:
        if any(isinstance(one, KeptMemory) for one in callbacks):
            opened.enter_context(memory_kept(trainer.strategy.root_device))
        yield
