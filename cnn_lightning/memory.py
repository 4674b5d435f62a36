"""Whether a process gives the memory of freed tensors back to the system while it trains."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# variables that set up glibc's allocator, or put another in its place
SET_UP_BY = (
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
# of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER, _NONE = -1, 0
# what glibc's own thresholds grow to, and how many blocks it maps (mallopt(3))
_USUAL = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _MMAP_MAX: 65536}
_KEEP = _USUAL | {_MMAP_MAX: _NONE, _TRIM_THRESHOLD: _NEVER}
# blocks of 1 MiB and more mapped one by one, so that none waits behind another to be given back;
# the end of the heap as glibc has it, twice the size of a block
_GIVE_BACK = _USUAL | {_MMAP_THRESHOLD: 2**20, _TRIM_THRESHOLD: 2 * 2**20}
# glibc does not tell; the last one holds
_in_force = [_USUAL]


@contextmanager
def memory_kept(device: torch.device, *, keep: bool = True) -> Iterator[bool]:
    """Let the next training step have the memory that the last one freed, or let none wait for it.

    By itself glibc does half of each: it gives the largest blocks, and the end of its heap, back
    to the system whenever they are freed, and has others wait wherever they lie. What was given
    back is asked for again in the next step, page by page, and the system fills each with zeros
    first; what waits is too small for the next tensor, or in the wrong place (`--parts memory` of
    `benchmark` times a step in both ways).

    After the block what is free is given back, and what held before holds again: of the outermost
    block, thresholds as they would have grown to by themselves. Nothing changes with another
    allocator, where the environment sets this up (`SET_UP_BY`), or on another device than the CPU.

    Args:
        device: Where tensors are.
        keep: Whether all freed memory is kept inside the block, or as much as can be of it is
            given back at once: slower, and less memory in all.

    Yields:
        Whether memory is kept.
    """
    libc = _find_glibc() if device.type == "cpu" else None
    if libc is None:
        yield False
        return
    depth = len(_in_force)
    _in_force.append(_KEEP if keep else _GIVE_BACK)
    _set_up(libc)
    try:
        yield keep
    finally:
        del _in_force[depth:]
        _set_up(libc)


def can_keep_memory(device: torch.device) -> bool:
    """Whether `memory_kept` changes anything on a device."""
    return device.type == "cpu" and _find_glibc() is not None


def _set_up(libc: Any) -> None:
    for parameter, value in _in_force[-1].items():
        libc.mallopt(parameter, value)
    libc.malloc_trim(0)  # else new blocks are cut from what is free, and are not mapped


def _find_glibc() -> Any:
    """The library whose allocator this process uses, unless someone has set it up already."""
    if sys.platform != "linux" or any(name in os.environ for name in SET_UP_BY):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
