"""Looking up once what Lightning looks up at every batch finds the same."""

from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.profilers import PassThroughProfiler, Profiler, SimpleProfiler
from lightning.pytorch.trainer.connectors.data_connector import _DataHookSelector
from typing_extensions import override

from cnn_lightning.classifiers.lean import LeanModule


class Plain(LeanModule):
    pass


class Marking(LeanModule):
    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [*batch, "module"]


class MarkingData(L.LightningDataModule):
    @override
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [*batch, "data"]


def connect(module: LeanModule, data: L.LightningDataModule | None, profiler: Profiler) -> None:
    selector = _DataHookSelector(module, data)
    connector = SimpleNamespace(_datahook_selector=selector)
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        _data_connector=connector, datamodule=data, profiler=profiler, lightning_module=module
    )


@pytest.mark.parametrize("profiler", [PassThroughProfiler(), SimpleProfiler()])
@pytest.mark.parametrize(
    ("module", "data", "wanted"),
    [
        (Plain(), None, []),
        (Plain(), L.LightningDataModule(), []),
        (Marking(), None, ["module"]),
        (Marking(), L.LightningDataModule(), ["module"]),
        (Plain(), MarkingData(), ["data"]),
        (Marking(), MarkingData(), ["data"]),  # as Lightning decides
    ],
)
def test_a_hook_of_the_data_goes_before_one_of_the_module(
    module: LeanModule,
    data: L.LightningDataModule | None,
    wanted: list[str],
    profiler: Profiler,
) -> None:
    connect(module, data, profiler)
    module.setup("fit")
    for _ in range(2):
        assert module._call_batch_hook("on_after_batch_transfer", [], 0) == wanted
        assert module._on_before_batch_transfer([]) == []


def test_another_data_module_is_asked_anew() -> None:
    module = Plain()
    for data, wanted in ((MarkingData(), ["data"]), (None, []), (MarkingData(), ["data"])):
        connect(module, data, PassThroughProfiler())
        module.setup("fit")
        assert module._call_batch_hook("on_after_batch_transfer", [], 0) == wanted


def test_a_profiler_that_measures_is_told_of_the_hook() -> None:
    module, profiler = Plain(), SimpleProfiler()
    connect(module, MarkingData(), profiler)
    module._call_batch_hook("on_after_batch_transfer", [], 0)
    assert "[LightningDataModule]MarkingData.on_after_batch_transfer" in profiler.recorded_durations
