"""How busy a GPU is, measured of stand-ins for its profiler."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import UNDRAWN

from cnn_lightning.commands.arguments import read_start
from cnn_lightning.commands.benchmarking import busyness
from cnn_lightning.commands.benchmarking.busyness import Busyness, covered
from cnn_lightning.commands.benchmarking.training_step import MeasuredCLI
from cnn_lightning.commands.training import silence

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=12)


@given(SPANS)
def test_time_that_spans_share_counts_once(lengths: list[tuple[int, int]]) -> None:
    spans = [(float(begin), float(begin + length)) for begin, length in lengths]
    seconds = {second for begin, length in lengths for second in range(begin, begin + length)}
    assert covered(spans) == len(seconds)


class Profile:
    """What torch's profiler would have seen, were there a GPU."""

    def __init__(self, activities: object) -> None:
        self.is_running = False

    def start(self) -> None:
        self.is_running = True

    def stop(self) -> None:
        assert self.is_running


@pytest.mark.parametrize("validates", [True, False])
def test_each_epoch_but_the_first_has_a_share_beside_that_of_the_bare_loop(
    validates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.9, 0.9, 0.5, 0.6, 0.3, 0.4])  # by turns the Trainer and the bare loop
    times = iter(range(100))
    monkeypatch.setattr(busyness, "profile", Profile)
    monkeypatch.setattr(busyness, "clock", lambda device: float(next(times)))
    monkeypatch.setattr(busyness, "device_spans", lambda profiled: [(0.0, 1e6 * next(shares))])
    silence()
    watch = Busyness()
    argv = [*UNDRAWN, "--data", "ShapesDataModule", "--data.num_images", "100"]
    argv += ["--data.num_test", "20", "--data.batch_size", "16", "--model", "LeNet"]
    argv += ["--trainer.max_epochs", "3", "--log_dir", str(tmp_path)]
    if not validates:
        argv += ["--trainer.limit_val_batches", "0"]
    cli = MeasuredCLI(read_start("fit", argv), [watch])
    found = watch.measurement()
    assert list(found.values) == pytest.approx([0.5, 0.3])
    assert list(found.reference_values) == pytest.approx([0.6, 0.4])
    assert watch.loop is not None
    bare = watch.loop.network.state_dict()
    for name, value in cli.model.network.state_dict().items():
        assert value.equal(bare[name]), name


def test_what_ran_on_the_gpu_is_told_from_what_the_program_did() -> None:
    class Event:
        def __init__(self, kind: str, begin: float, *, named: bool = False) -> None:
            self.device_type = type("DeviceType", (), {"name": kind})
            self.time_range = type("Range", (), {"start": begin, "end": begin + 1})
            self.is_user_annotation = named

    events = [Event("CUDA", 1), Event("CPU", 2), Event("CUDA", 3, named=True), Event("CUDA", 4)]
    profiled = type("Profiled", (), {"events": lambda self: events})()
    assert busyness.device_spans(profiled) == [(1, 2), (4, 5)]
