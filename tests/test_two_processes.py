"""Two processes: one is killed, the other ends, and the resumed run has the same bits."""

import csv
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from break_a_process import break_step
from compare import assert_same_checkpoint
from killing import Process, run_pair
from torch.multiprocessing.spawn import ProcessExitedException

from cnn_lightning.processes import explain_loss

BREAK = Path(__file__).with_name("break_a_process.py")
LAST = Path("checkpoints/last.ckpt")
# 270 training images, 135 each: nine steps an epoch; logged every four, a checkpoint every three
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 300, num_test: 40, batch_size: 16, augment: crop_flip}
model: {class_path: LeNet, init_args: {activation: relu, dropout: 0.5}}
trainer: {max_epochs: 2, log_every_n_steps: 4, accelerator: cpu, devices: 2, strategy: ddp}
checkpoint: {every_n_steps: 3}
feature_maps: {every_n_epochs: 0}
kernels: {every_n_epochs: 0}
activation_statistics: {every_n_epochs: 0}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command to the end of all its processes."""
    return subprocess.run(
        # the pipes are closed when the last process that writes to them is gone
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
    )


def folder(log_dir: Path) -> Path:
    (found,) = (log_dir / "small").glob("version_*")
    return found


def break_launched(argv: list[str]) -> None:
    """A hook: process 1, which Lightning starts as this one was, is killed in step 14."""
    failure = [1, 14, int(signal.SIGKILL)]
    sys.argv = [str(BREAK), *map(str, failure), *argv]
    sys.modules["__main__"].__spec__ = None
    break_step(1, 14, str(failure[-1]))


def rows(run: Path) -> list[dict[str, str]]:
    """metrics.csv without what the clock decides."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [
            {k: v for k, v in row.items() if k != "images_per_second"}
            for row in csv.DictReader(stream)
        ]


def test_a_run_that_lost_a_process_says_so_and_goes_on_with_the_same_bits(
    recipe: Path, tmp_path: Path
) -> None:
    fit = ["fit", "--config", str(recipe), "--log_dir"]
    assert run_pair([*fit, str(tmp_path / "whole")], tmp_path / "whole.txt") == [0, 0]
    argv = [*fit, str(tmp_path / "cut")]
    cut = Process(argv, tmp_path / "cut.txt", partial(break_launched, argv))
    assert cut.wait() == 1, cut.output
    last = folder(tmp_path / "cut") / LAST
    assert cut.output.splitlines()[-2:] == [
        "error: process 1 of 2 of this machine was ended by SIGKILL",
        f"  {last} is of step 12. Go on with: cnn-lightning fit --ckpt_path {last}",
    ]
    assert "Traceback" not in cut.output
    assert run_pair(["fit", "--ckpt_path", str(last)], tmp_path / "resumed.txt") == [0, 0]
    assert_same_checkpoint(folder(tmp_path / "whole") / LAST, last)
    assert rows(folder(tmp_path / "whole")) == rows(folder(tmp_path / "cut"))


@pytest.mark.slow
@pytest.mark.parametrize("others", ["", ",hang"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_even_where_that_hangs(
    rank: int, others: str, recipe: Path, tmp_path: Path
) -> None:
    fit = ["fit", "--config", recipe, "--log_dir", tmp_path]
    cut = run(BREAK, rank, 14, f"{int(signal.SIGKILL)}{others}", *fit)
    last = folder(tmp_path) / LAST
    assert cut.returncode == (1 if rank else -signal.SIGKILL)
    assert cut.stderr.splitlines()[-2:] == [
        "error: process 1 of 2 of this machine was ended by SIGKILL"
        if rank
        else "error: process 1 ends, because process 0 is gone",
        f"  {last} is of step 12. Go on with: cnn-lightning fit --ckpt_path {last}",
    ]
    assert "Traceback" not in cut.stderr


def test_a_process_that_torch_has_spawned_and_lost_is_named() -> None:
    # the first ends with 0, the second with 1
    with pytest.raises(ProcessExitedException) as caught:
        torch.multiprocessing.start_processes(os._exit, nprocs=2, start_method="forkserver")
    loss = explain_loss(caught.value)
    assert loss is not None
    assert loss.what == "process 1 of this machine ended with exit code 1"
    assert explain_loss(RuntimeError("a connection closed by peer")) is None  # there is only one


@pytest.mark.slow
def test_a_bad_loss_in_one_process_ends_both_and_is_told_once(recipe: Path, tmp_path: Path) -> None:
    fit = ["fit", "--config", recipe, "--log_dir", tmp_path]
    cut = run(BREAK, 1, 14, "nan", *fit)
    assert cut.returncode == 1
    told = [line for line in cut.stderr.splitlines() if line.startswith("error")]
    assert len(told) == 1
    assert told[0].startswith("error: the training loss of another process is bad at step 14")
    assert f"{folder(tmp_path) / LAST}, step 12: go on" in cut.stderr
    assert "Traceback" not in cut.stderr


@pytest.mark.slow
def test_torchrun_starts_two_processes_of_one_run(recipe: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", 2]
    fit = ["fit", "--config", recipe, "--log_dir", tmp_path, "--run"]
    # without the dashes torchrun takes --run for one of its own
    ran = run(*torchrun, "-m", "cnn_lightning", "--", *fit, "two")
    assert ran.returncode == 0, ran.stderr
    assert "2 × cpu" in ran.stdout
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["version_0"]
    content = torch.load(tmp_path / "two/version_0" / LAST, weights_only=True)
    assert content["global_step"] == 18
    cut = run(*torchrun, BREAK, "--", 1, 4, int(signal.SIGKILL), *fit, "cut")
    assert cut.returncode != 0
    kept = torch.load(tmp_path / "cut/version_0" / LAST, weights_only=True)
    assert kept["global_step"] == 3


@pytest.mark.slow
def test_slurm_is_asked_once_for_a_job_of_two_tasks_of_which_one_was_told(
    recipe: Path, tmp_path: Path
) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked.txt\n')
    scontrol.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "MASTER_PORT": str(port),
        "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}",
    }
    fit = [BREAK, 1, 4, int(signal.SIGUSR1), "fit", "--config", recipe, "--log_dir", tmp_path]
    tasks = [
        subprocess.Popen(
            [sys.executable, *map(str, fit), "--ckpt_path", "auto"],
            env={**os.environ, **job, "SLURM_PROCID": task, "SLURM_LOCALID": task},
        )
        for task in ("0", "1")
    ]
    assert [task.wait(timeout=300) for task in tasks] == [128 + signal.SIGUSR1] * 2
    assert (tmp_path / "asked.txt").read_text() == "requeue 4711\n"
    kept = torch.load(folder(tmp_path) / LAST, weights_only=True)
    assert kept["global_step"] == 5
