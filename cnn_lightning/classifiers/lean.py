"""A LightningModule of whose steps Lightning's own bookkeeping takes less."""

from typing import Any

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler
from typing_extensions import override


class LeanModule(L.LightningModule):
    """Does what its parent does, and looks up once what its parent looks up at every step."""

    def __init__(self) -> None:
        super().__init__()
        self._data_has_hook: dict[str, bool] = {}

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes here which hook it is in, forty times a step; torch would look each time
        # whether that is a parameter
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @override
    def setup(self, stage: str) -> None:
        self._data_has_hook.clear()  # the data module may be another one

    def _call_batch_hook(self, hook_name: str, *args: Any) -> Any:
        """Call a hook of the data module if it has one of its own, else this module's."""
        trainer = self._trainer
        profiler = getattr(trainer, "profiler", None)
        if trainer is None or not isinstance(profiler, PassThroughProfiler):
            return super()._call_batch_hook(hook_name, *args)
        if hook_name not in self._data_has_hook:
            selector = trainer._data_connector._datahook_selector
            owner = None if selector is None else selector.get_instance(hook_name)
            self._data_has_hook[hook_name] = isinstance(owner, L.LightningDataModule)
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        return getattr(data if self._data_has_hook[hook_name] else self, hook_name)(*args)
