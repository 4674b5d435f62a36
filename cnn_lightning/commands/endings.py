"""How a run that did not come to its end says why, and how to go on."""

import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import OutOfMemoryError

from cnn_lightning import slurm
from cnn_lightning.commands.arguments import Start
from cnn_lightning.console import rank, say
from cnn_lightning.errors import (
    DamagedFileError,
    Interrupted,
    LostProcessError,
    PlainError,
    RunError,
    UserError,
)
from cnn_lightning.files import explain_disk_failure, explain_no_access, load_checkpoint
from cnn_lightning.imports import own_modules
from cnn_lightning.processes import explain_loss, is_first_gone

# torch's words for what `trainer.deterministic` cannot have
_NOT_DETERMINISTIC = "does not have a deterministic implementation"
# Lightning's of what `EarlyStopping` watches
_NO_METRIC = "which is not available"
_MISSING_PACKAGE = re.compile(r"`(\w+)` (?:is not|to be) installed|No module named '([\w.]+)'")


@contextmanager
def explained(start: Start, argv: list[str]) -> Iterator[None]:
    """Let a lack of disk, memory or a process leave as a `RunError` that says how to go on.

    A lack of permission, an interval that no epoch has, a metric and a package that are not there
    leave as a `UserError`.

    Args:
        start: How the command started.
        argv: As the user wrote it, without the command.
    """
    before = threading.excepthook

    def quiet(args: Any) -> None:
        # TensorBoard writes in a thread, which dies of a full disk; the next to log hears of it
        if args.exc_value is None or explain_disk_failure(args.exc_value) is None:
            before(args)

    threading.excepthook = quiet
    try:
        yield
    except LostProcessError as loss:
        raise tell_way_on(loss, start, argv) from loss
    except PlainError:
        raise
    except Exception as error:
        lost = explain_loss(error)
        if lost is not None:
            raise tell_way_on(lost, start, argv) from error
        failure = explain_disk_failure(error) or _explain_memory(error) or _explain_refusal(error)
        if failure is not None:
            raise RunError(failure.what, f"{failure.remedy}; {way_on(start, argv)}") from error
        mistake = (
            explain_no_access(error)
            or _explain_interval(error)
            or _explain_metric(error)
            or _explain_absence(error)
        )
        if mistake is None:
            raise
        raise mistake from error
    finally:
        threading.excepthook = before


def _explain_memory(error: Exception) -> RunError | None:
    # on a CPU torch raises a plain RuntimeError
    if not isinstance(error, (MemoryError, OutOfMemoryError)) and not (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    ):
        return None
    return RunError(
        f"there is not enough memory: {str(error).strip()}",
        "use fewer images, a smaller batch or a smaller network",
    )


def _explain_refusal(error: Exception) -> RunError | None:
    if not isinstance(error, RuntimeError) or _NOT_DETERMINISTIC not in str(error):
        return None
    what = str(error).partition(_NOT_DETERMINISTIC)[0].strip()
    return RunError(
        f"{what} {_NOT_DETERMINISTIC} on this device",
        "use --trainer.deterministic warn, or false",
    )


def _explain_interval(error: Exception) -> UserError | None:
    # Lightning notices it when it counts the batches of an epoch
    if not isinstance(error, ValueError) or "`val_check_interval`" not in str(error):
        return None
    return UserError(
        str(error).partition(". ")[0].strip(),
        "give at most so many, or --trainer.check_val_every_n_epoch null to count over epochs",
    )


def _explain_metric(error: Exception) -> UserError | None:
    what, told, remedy = str(error).partition(_NO_METRIC)
    if not told or not isinstance(error, RuntimeError):
        return None
    names = remedy.partition("any of the following: ")[2]
    return UserError(f"{what}{told}", f"let it watch one of {names}" if names else "name another")


def _explain_absence(error: Exception) -> UserError | None:
    # Lightning looks for what a callback of its own needs when the run begins
    if not isinstance(error, ModuleNotFoundError):
        return None
    missing = _MISSING_PACKAGE.search(str(error))
    if missing is None:
        return None
    name = missing[1] or missing[2]
    return UserError(
        f"the package {name} is not installed", f"pip install {name}, or leave out what needs it"
    )


def tell_way_on(loss: LostProcessError, start: Start, argv: list[str]) -> LostProcessError:
    """The same, with how to go on; of several processes that are left, one says that."""
    if rank() != 0 and not is_first_gone():
        return loss
    return LostProcessError(loss.what, way_on(start, argv))


def report_loss(start: Start, argv: list[str], loss: LostProcessError) -> None:
    """Say which process was lost, and how to go on."""
    sys.stderr.write(f"error: {tell_way_on(loss, start, argv)}\n")
    sys.stderr.flush()


def report_interruption(interruption: Interrupted, start: Start, argv: list[str]) -> int:
    """Say how to go on with a run that a signal stopped, or let SLURM; returns the exit code.

    Raises:
        RunError: SLURM does not want to.
    """
    say(f"{interruption}; {way_on(start, argv)}")
    told_by_slurm = slurm.is_job() and interruption.signal_number == signal.SIGUSR1
    if told_by_slurm and rank() == 0:
        say(f"SLURM will run job {slurm.requeue()} again")
    return interruption.exit_code


def way_on(start: Start, argv: list[str]) -> str:
    """What is kept of a run, and the command that goes on with it.

    Args:
        start: How the command started.
        argv: As the user wrote it, without the command.
    """
    own = ",".join(own_modules())
    command = ["cnn-lightning", start.command, *(["--allow_modules", own] if own else [])]
    if start.command == "fit":
        for path in start.folder.checkpoints_to_resume():
            try:
                step = int(load_checkpoint(path).get("global_step", 0))
            except DamagedFileError:
                continue
            again = shlex.join([*command, "--ckpt_path", str(path)])
            return f"{path} is of step {step}. Go on with: {again}"
    return f"nothing to go on from. Start again with: {shlex.join([*command, *argv])}"
