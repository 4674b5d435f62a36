"""Files are decoded to the same images in the same order, by threads and by processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnn_lightning.data import decoding
from cnn_lightning.data.decoding import Decoded, decode_files
from cnn_lightning.errors import RunError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads alone are used here")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """150 pictures of 6×4 pixels, of which the 71st is damaged."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number:03}.png" for number in range(150)]
    for path in paths:
        Image.fromarray(random.integers(256, size=(4, 6, 3), dtype=np.uint8)).save(path)
    paths[70].write_bytes(paths[70].read_bytes()[:60])
    return paths


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_FILES_PER_PROCESS", 1)


def read(files: list[Path]) -> list[Decoded]:
    return list(decode_files(files, (3, 4, 4), num_workers=2))


@on_linux
def test_processes_give_what_threads_give(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_threads = read(files)
    monkeypatch.setattr(decoding, "_FILES_PER_PROCESS", 1)
    state = torch.get_rng_state()
    by_processes = read(files)
    assert torch.equal(torch.get_rng_state(), state)
    assert [place for one in by_processes for place in one.places] == [*range(70), *range(71, 150)]
    for one, other in zip(by_processes, by_threads, strict=True):
        assert one.places == other.places
        assert torch.equal(one.images, other.images)
        assert [place for place, _ in one.errors] == [place for place, _ in other.errors]
        assert [str(error) for _, error in one.errors] == [str(error) for _, error in other.errors]
    assert sum(len(one.errors) for one in by_processes) == 1


@on_linux
@pytest.mark.usefixtures("processes")
def test_processes_end_with_whoever_asks(files: list[Path]) -> None:
    results = decode_files(files, (3, 4, 4), num_workers=2)
    next(results)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert not multiprocessing.active_children()


@on_linux
@pytest.mark.usefixtures("processes")
def test_each_worker_is_a_process_that_leaves_signals_to_the_parent(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(path: Path, *, mode: str) -> Tensor:
        ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        stays = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        is_other = os.getpid() != parent
        return torch.full((3, 4, 4), 100 * ignores + 10 * stays + is_other, dtype=torch.uint8)

    parent = os.getpid()
    monkeypatch.setattr(decoding, "read_image", tell)
    assert {int(value) for one in read(files) for value in one.images.unique()} == {111}


@on_linux
@pytest.mark.usefixtures("processes")
def test_a_killed_process_is_told(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def die(path: Path, *, mode: str) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(decoding, "read_image", die)
    with pytest.raises(RunError, match="give fewer num_workers"):
        read(files)


@pytest.mark.usefixtures("processes")
def test_a_fault_of_the_program_itself_is_not_hidden(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "fit_image", lambda image, *size: image + None)
    with pytest.raises(TypeError):
        read(files)


def test_few_files_are_read_by_threads(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(decoding, "ProcessPoolExecutor")
    assert sum(len(one.places) for one in read(files)) == 149


_ORPHANED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from cnn_lightning.data import decoding
decoding._FILES_PER_PROCESS = 1
results = decoding.decode_files([Path(path) for path in sys.argv[1:]], (3, 4, 4), num_workers=2)
next(results)
print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@on_linux
@pytest.mark.slow
def test_no_process_outlives_a_killed_parent(files: list[Path]) -> None:
    command = [sys.executable, "-c", _ORPHANED, *map(str, files)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    # the pipe is closed by now, as `run` waits for its end; a busy processor then takes a while
    # over the rest of a process
    workers = ended.stdout.split()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, workers))


def runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # gone, or waiting for whoever has taken over
