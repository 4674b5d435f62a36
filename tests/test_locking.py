"""A file that one process holds is free again as soon as that process lets go of it."""

import errno
import fcntl
import os
import warnings
from pathlib import Path

import pytest

from cnn_lightning.errors import UserError
from cnn_lightning.locking import held_alone


def test_a_file_is_held_by_one_and_no_longer_than_its_process_wants(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    taken = UserError("it is taken", "wait")

    def hold() -> None:
        with held_alone(path, taken):
            pass

    (reader, writer), (began, begin) = os.pipe(), os.pipe()
    with held_alone(path, taken):
        with pytest.raises(UserError, match="it is taken"):
            hold()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of threads beside forks
            child = os.fork()
        if child == 0:  # waits until the test has ended
            os.close(writer)
            os.write(begin, b"x")
            os.read(reader, 1)
            os._exit(0)
        os.read(began, 1)
    hold()
    with pytest.raises(ZeroDivisionError), held_alone(path, taken):
        _ = 1 / 0
    hold()
    for end in (reader, writer, began, begin):
        os.close(end)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.ENOTSUP])
def test_where_nothing_can_be_locked_nobody_is_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    taken = UserError("it is taken", "wait")
    with held_alone(tmp_path / ".lock", taken), held_alone(tmp_path / ".lock", taken):
        pass
    with held_alone(tmp_path / "no_folder/.lock", taken):
        pass
