"""SLURM: a job that is told of its end asks to be run again."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from cnn_lightning.errors import Interrupted, RunError


def is_job() -> bool:
    """Whether SLURM's `srun` started this process, and not a person in a shell of a job."""
    # the same question as Lightning's SLURMEnvironment asks
    name = os.environ.get("SLURM_JOB_NAME")
    return "SLURM_NTASKS" in os.environ and name not in ("bash", "interactive")


@contextmanager
def heeding_notice() -> Iterator[None]:
    """Let SIGUSR1 (`sbatch --signal=SIGUSR1@90`) leave the block as `Interrupted`.

    While it trains, `LastCheckpoint` hears it, and writes the state before.
    """
    before = signal.signal(signal.SIGUSR1, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def requeue() -> str:
    """Ask SLURM to run this job again; returns its number.

    Raises:
        RunError: SLURM does not want to.
    """
    # other processes of the job may be told a moment later than this one
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        # on the PATH of every node
        subprocess.run(  # noqa: S603
            ["scontrol", "requeue", job],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        raise RunError(
            f"SLURM did not requeue job {job}: {why.strip()}",
            "submit it again; with --ckpt_path auto it goes on",
        ) from error
    return job


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise Interrupted(number)
