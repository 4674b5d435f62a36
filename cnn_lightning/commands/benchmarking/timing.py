"""Clocks and peak memory; imports nothing that takes time or memory itself."""

import re
import resource
import sys
import time
from pathlib import Path
from typing import Any


def clock(device: Any) -> float:
    """Seconds, read once a `torch.device` has done all that it has yet to do."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory() -> int:
    """The most bytes of memory that this process has held at once."""
    status = Path("/proc/self/status")
    if status.is_file():
        # not ru_maxrss, in which Linux counts what the process that started this one held
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found is not None:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
