"""Files that one process holds at a time."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# descriptors of files that this process holds alone
_held: set[int] = set()


@contextmanager
def held_alone(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold a file that one process can hold at a time; whatever ends the process lets go of it.

    Where the system or its files know no locks, nobody is refused.

    Args:
        path: The file, made if absent; its folder must be there.
        refusal: Raised if another process holds it.
    """
    with ExitStack() as held:
        try:
            # a program that this one starts does not inherit it
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            _held.add(descriptor)
            held.callback(_let_go, descriptor)
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except OSError:
            pass
        yield


def _let_go(*descriptors: int) -> None:
    """Close what this process holds: these, or all that it has from the one that forked it."""
    for descriptor in descriptors or tuple(_held):
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


if sys.platform != "win32":
    # else the file would be held as long as any child is there
    os.register_at_fork(after_in_child=_let_go)
