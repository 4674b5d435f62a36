"""What the program says besides metrics: one plain line at a time, from one process."""

import sys

from lightning_utilities.core.rank_zero import rank_zero_only

from cnn_lightning.errors import printable


def rank() -> int:
    """The number of this process among those of the run, 0 for the first."""
    # Lightning sets it; where that is not even imported, there is one process
    return int(getattr(rank_zero_only, "rank", 0))


def say(line: str) -> None:
    """Write a line to standard output, from the first of several processes alone."""
    if rank() == 0:
        sys.stdout.write(f"{printable(line)}\n")
        sys.stdout.flush()
