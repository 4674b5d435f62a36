"""What every test gets: no network, folders of its own, and nothing left behind."""

import functools
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# several tests run at once; more threads each would only wait for one another
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start

# takes a minute: at the end the other workers would wait for it
FIRST = "test_two_processes.py"
LOCAL = ("127.0.0.1", "localhost", "::1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != FIRST)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise OSError(f"no network in tests: {address}")
        connect(self, address)

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in LOCAL and host is not None:
            raise socket.gaierror(f"no network in tests: {host}")
        return lookup(host, *args, **kwargs)

    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture(autouse=True)
def clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Own folders for weights and data, and everything left as it was found."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.delenv("CNN_LIGHTNING_DATA", raising=False)
    before = dict(os.environ)
    folder = Path.cwd()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    random_state = torch.get_rng_state()
    yield
    torch.set_rng_state(random_state)
    for number, handler in handlers.items():
        assert signal.getsignal(number) == handler, f"signal {number} was left with a handler"
    assert Path.cwd() == folder
    assert not torch.are_deterministic_algorithms_enabled()
    # Lightning writes the seed of a run into the environment
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def onnx_operators() -> Iterator[None]:
    """torch's exporter reads its hundreds of operators once, which takes as long as an export."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        once = functools.cache(ONNXRegistry.from_torchlib)
    except (ImportError, AttributeError):  # another torch has it elsewhere: exports take longer
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once))
        yield
