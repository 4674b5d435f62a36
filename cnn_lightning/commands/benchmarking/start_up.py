"""Processes of their own: how long to the first step, how much memory, and checkpoints."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn_lightning.commands.benchmarking.report import Measurement
from cnn_lightning.errors import RunError
from cnn_lightning.imports import own_modules

_CHILD = """
import sys
from cnn_lightning.commands.benchmarking.watched_process import main
main(sys.argv[1:])
"""
_IMPORTS = """
import json, pathlib, sys, time
import torch, torchvision, lightning.pytorch
from cnn_lightning.commands.benchmarking.timing import peak_memory
found = {"s": time.time() - float(sys.argv[1]), "peak_bytes": peak_memory()}
pathlib.Path(sys.argv[2]).write_text(json.dumps(found))
"""
_MIB = 2**20


def measure_start_up(argv: Sequence[str], *, repeats: int) -> list[Measurement]:
    """Start `fit` in new processes: to its first step, and for one epoch.

    Args:
        argv: Options of `fit`.
        repeats: How often each is done.

    Raises:
        RunError: A process failed.
    """
    first_step_s, imports_s, imported = [], [], []
    for _ in range(repeats):
        first_step_s.append(_start(_CHILD, "first step", 0, argv)["s"])
        found = _start(_IMPORTS)
        imports_s.append(found["s"])
        imported.append(found["peak_bytes"] / _MIB)
    epoch = _start(_CHILD, "epoch", repeats, argv)
    imports = "importing torch, torchvision and lightning"
    measured = [
        Measurement(
            "startup",
            "from the command to the first step done",
            "s",
            first_step_s,
            imports,
            imports_s,
        ),
        Measurement(
            "startup",
            "peak memory of an epoch on the CPU",
            "MiB",
            [epoch["peak_bytes"] / _MIB],
            imports,
            imported,
        ),
    ]
    if epoch["gpu_bytes"] is not None:
        peak = [epoch["gpu_bytes"] / _MIB]
        measured.append(Measurement("startup", "peak memory of an epoch on the GPU", "MiB", peak))
    plain = "torch.save of network, optimizer and schedule, unsynchronised"
    measured += [
        Measurement(
            "startup",
            "writing a checkpoint, check sums and synchronisation included",
            "s",
            epoch["checkpoint_s"],
            plain,
            epoch["plain_s"],
        ),
        Measurement(
            "startup",
            "size of a checkpoint",
            "MiB",
            [epoch["checkpoint_bytes"] / _MIB],
            plain,
            [epoch["plain_bytes"] / _MIB],
        ),
    ]
    return measured


def _start(code: str, what: str = "", repeats: int = 0, argv: Sequence[str] = ()) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="cnn-lightning-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-c", code, str(time.time()), str(result)]
        if what:
            asked = {
                "what": what,
                "repeats": repeats,
                "modules": own_modules(),
                "argv": [*argv, "--log_dir", folder],
            }
            command.append(json.dumps(asked))
        path = os.pathsep.join(filter(None, [*_import_paths(), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(  # noqa: S603  # this program itself
            command,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        if done.returncode != 0 or not result.is_file():
            told = (done.stderr or done.stdout).strip().splitlines()
            raise RunError(
                f"a measured process failed: {told[-1] if told else done.returncode}",
                "run the same with `fit` to see why",
            )
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def _import_paths() -> list[str]:
    """Where this package was found, should it not be installed."""
    return [str(Path(__file__).parents[3])]
