"""Several processes of one run: when one is lost, the others say so and end, too."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from typing_extensions import override

from cnn_lightning.console import rank
from cnn_lightning.errors import LostProcessError, PlainError

# the first process tells those that it starts its own number, by which they see that it is gone
_FIRST_PROCESS = "CNN_LIGHTNING_FIRST_PROCESS"
_LOOK_EVERY_S = 0.5
# usually the operation that waits for the lost process fails, and the process ends by itself
_PATIENCE_S = 8.0
_LOST_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe", re.IGNORECASE)

_first_is_gone = threading.Event()

GiveUp = Callable[[LostProcessError], None]


def watch_processes(trainer: L.Trainer, tell: GiveUp) -> None:
    """Let a process that waits for a lost one end after a few seconds, with exit code 1.

    Lightning's own watch kills all processes in silence, and does not see that the first is gone.

    Args:
        trainer: Before its processes are started.
        tell: Says which process was lost; called in a thread if this process still waits.
    """
    strategy = trainer.strategy
    launcher = strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        environment = launcher.cluster_environment
        if not environment.creates_processes_externally:
            strategy._launcher = _WatchfulLauncher(launcher, tell)
        elif isinstance(environment, LightningEnvironment) and _FIRST_PROCESS in os.environ:
            first = int(os.environ.pop(_FIRST_PROCESS))
            threading.Thread(target=_watch_first, args=(first, tell), daemon=True).start()


def explain_loss(error: BaseException) -> LostProcessError | None:
    """Put a lost connection to another process in words; `None` if the error is of another kind."""
    if isinstance(error, ProcessExitedException):  # of those that `ddp_spawn` starts
        how = "was ended by" if error.signal_name else "ended with exit code"
        which = f"process {error.error_index} of this machine {how}"
        return LostProcessError(f"{which} {error.signal_name or error.exit_code}")
    if isinstance(error, ProcessRaisedException) and _LOST_CONNECTION.search(str(error)):
        which = f"process {error.error_index} of this machine"
        return LostProcessError(f"{which} ended, because it lost the connection to another one")
    if isinstance(error, PlainError) or not dist.is_initialized() or not _is_lost(error):
        return None
    which = f"process {rank()}"
    if _first_is_gone.wait(2 * _LOOK_EVERY_S):
        return LostProcessError(f"{which} ends, because process 0 is gone")
    return LostProcessError(f"{which} ends, because it lost the connection to another one")


def is_first_gone() -> bool:
    """Whether the process that started this one, and speaks for all, is gone."""
    return _first_is_gone.is_set()


class _WatchfulLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, and ends if one of them is lost.

    Args:
        launcher: What Lightning would start them with.
        tell: As for `watch_processes`.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher, tell: GiveUp) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self._tell = tell
        self._children: list[subprocess.Popen[bytes]] = []

    @override
    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any
    ) -> Any:
        try:
            return super().launch(function, *args, trainer=trainer, **kwargs)
        except Exception as error:
            if isinstance(error, PlainError) or not _is_lost(error):
                raise
            deadline = time.monotonic() + _PATIENCE_S / 2
            while (loss := self._find_loss()) is None and time.monotonic() < deadline:
                time.sleep(_LOOK_EVERY_S / 10)
            if loss is None:
                raise
            raise loss from error

    @override
    def kill(self, signum: int) -> None:
        for child in self._children:
            child.send_signal(signum)

    @override
    def _call_children_scripts(self) -> None:
        os.environ[_FIRST_PROCESS] = str(os.getpid())
        try:
            super()._call_children_scripts()
        finally:
            del os.environ[_FIRST_PROCESS]
        # Lightning's watch must find none
        self._children, self.procs = self.procs, []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while (loss := self._find_loss()) is None:
            if all(child.returncode == 0 for child in self._children):
                return
            time.sleep(_LOOK_EVERY_S)
        time.sleep(_PATIENCE_S)
        self._tell(loss)
        for child in self._children:
            child.kill()
        os._exit(1)

    def _find_loss(self) -> LostProcessError | None:
        for number, child in enumerate(self._children, 1):
            code = child.poll()
            if code:
                which = f"process {number} of {len(self._children) + 1} of this machine"
                if code > 0:
                    return LostProcessError(f"{which} ended with exit code {code}")
                return LostProcessError(f"{which} was ended by {signal.Signals(-code).name}")
        return None


def _watch_first(first: int, tell: GiveUp) -> None:
    while os.getppid() == first:
        time.sleep(_LOOK_EVERY_S)
    _first_is_gone.set()
    time.sleep(_PATIENCE_S)
    tell(LostProcessError(f"process {rank()} ends, because process 0 is gone"))
    os._exit(1)


def _is_lost(error: BaseException | None) -> bool:
    """Whether an error is, or was caused by, a connection to another process that broke."""
    while error is not None:
        if isinstance(error, dist.DistError):
            return True
        if isinstance(error, RuntimeError) and _LOST_CONNECTION.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
