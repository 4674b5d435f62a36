"""Freed memory is kept inside the block or given back at once, as usual after it."""

import ctypes
import subprocess
import sys

import pytest
import torch

from cnn_lightning.classifiers import LeNet
from cnn_lightning.commands.benchmarking.memory import measure_memory
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.memory import SET_UP_BY, memory_kept

CPU = torch.device("cpu")
# in processes of their own: in the heap of this one there is room that was freed earlier
COUNTING = """
import resource
import torch
from cnn_lightning.memory import memory_kept

SIZE = 40 * 2**20  # above what glibc ever keeps by itself
PAGES = SIZE // resource.getpagesize()

def faults():
    # the share of a tensor's pages that the system had to give anew
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(SIZE, dtype=torch.uint8)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / PAGES

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) / PAGES
"""
KEPT = """
faults()
print(faults())
with memory_kept(torch.device("cpu")):
    for _ in range(20):  # glibc aligns a block with what is over of others, and keeps some
        faults()
    print(faults())
    held = resident()
print(held - resident())
print(faults())
"""
GIVEN_BACK = """
def waiting():
    # the share of a tensor's memory that the process still has when the tensor is freed
    first = torch.ones(SIZE // 4, dtype=torch.uint8)
    second = torch.ones(SIZE // 4, dtype=torch.uint8)  # so that the first is not the heap's end
    before = resident()
    del first
    return 1 - 4 * (before - resident())

torch.ones(SIZE // 2, dtype=torch.uint8)  # blocks below this size are not mapped from now on
print(waiting())
with memory_kept(torch.device("cpu"), keep=False):
    print(waiting())
print(waiting())
"""
NESTED = """
with memory_kept(torch.device("cpu"), keep=False):
    print(faults())
    with memory_kept(torch.device("cpu")):
        for _ in range(20):
            faults()
        print(faults())
    print(faults())
"""


@pytest.fixture
def glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        pytest.skip("this system has another C library than glibc")
    for name in SET_UP_BY:
        monkeypatch.delenv(name, raising=False)


def measure(script: str) -> list[float]:
    command = [sys.executable, "-c", COUNTING + script]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [float(number) for number in ran.stdout.split()]


@pytest.mark.usefixtures("glibc")
def test_memory_of_a_freed_tensor_is_used_again() -> None:
    before, inside, returned, after = measure(KEPT)
    assert before > 0.5
    assert inside < 0.01
    assert returned > 0.5
    assert after > 0.5


@pytest.mark.usefixtures("glibc")
def test_no_memory_waits_where_none_is_kept() -> None:
    before, inside, after = measure(GIVEN_BACK)
    assert before > 0.9
    assert inside < 0.1
    assert after > 0.9


@pytest.mark.usefixtures("glibc")
def test_what_held_before_a_block_holds_after_it() -> None:
    before, inside, after = measure(NESTED)
    assert before > 0.9
    assert inside < 0.01
    assert after > 0.9


@pytest.mark.usefixtures("glibc")
@pytest.mark.parametrize("name", SET_UP_BY)
def test_what_the_environment_says_of_the_allocator_holds(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory_kept(CPU) as kept:
        assert kept
    monkeypatch.setenv(name, "")
    with memory_kept(CPU) as kept:
        assert not kept


@pytest.mark.usefixtures("glibc")
def test_a_step_has_its_memory_anew_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(128 * 1024))
    _, inside, _, after = measure(KEPT)
    assert inside > 0.5
    assert after > 0.5


def test_nothing_is_kept_without_a_cpu_or_where_it_is_not_asked_for() -> None:
    with memory_kept(torch.device("cuda")) as kept:
        assert not kept
    with memory_kept(CPU, keep=False) as kept:
        assert not kept


@pytest.mark.usefixtures("glibc")
def test_steps_are_timed_by_turns() -> None:
    data = ShapesDataModule(num_images=60, num_test=20, batch_size=16)
    data.setup("fit")
    classifier = LeNet(10)
    classifier.adapt_to(data)
    found = measure_memory(classifier, data, CPU, dtype=None, repeats=2)
    assert found is not None
    assert len(found.ratios) == 2
    assert found.what == "step of LeNet5 on 16×3×32×32, memory kept"


def test_where_memory_cannot_be_kept_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "9")
    data = ShapesDataModule(num_images=60, num_test=20, batch_size=16)
    data.setup("fit")
    classifier = LeNet(10)
    classifier.adapt_to(data)
    assert measure_memory(classifier, data, CPU, dtype=None, repeats=1) is None
