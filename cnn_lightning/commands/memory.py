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


@contextmanager
def memory_kept(device: torch.device, *, keep: bool = True) -> Iterator[bool]:
    """Let the next training step have the memory that the last one freed.

    glibc gives the largest blocks, and the end of its heap, back to the system whenever they are
    freed. The next step asks for the same again, page by page, and the system fills each with
    zeros first: a twentieth of a step of ResNet-18 at batch size 128 (`--parts memory` of
    `benchmark`). Inside the block it keeps them; after it, it gives back what is free, with
    its thresholds where they would have grown to by themselves.

    Nothing changes with another allocator, where the environment sets this up (`SET_UP_BY`), on
    another device than the CPU, or without `keep`.

    Args:
        device: Where tensors are.
        keep: Whether to.

    Yields:
        Whether memory is kept.
    """
    libc = _find_glibc() if keep and device.type == "cpu" else None
    if libc is None:
        yield False
        return
    libc.mallopt(_MMAP_MAX, _NONE)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield True
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _find_glibc() -> Any:
    """The library whose allocator this process uses, unless someone has set it up already."""
    if sys.platform != "linux" or any(name in os.environ for name in SET_UP_BY):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
