"""What the program says besides metrics: one plain line at a time, from one process."""

import sys

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say(line: str) -> None:
    """Write a line to standard output, from the first of several processes alone."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
