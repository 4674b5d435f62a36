"""A SLURM job that is told of its end writes its state, asks to be run again, and then goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import assert_same_checkpoint
from torch import Tensor

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.cli import main

LAST = Path("checkpoints/last.ckpt")
# 270 training images are nine steps of 32
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 300, num_test: 40, batch_size: 32, augment: crop_flip}
model: LeNet
trainer: {max_epochs: 2, accelerator: cpu}
feature_maps: {every_n_epochs: 0}
kernels: {every_n_epochs: 0}
"""
JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    return ["fit", "--config", str(recipe), "--ckpt_path", "auto"]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The environment of a job; what `scontrol` was asked for is in the file."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    asked = tmp_path / "asked.txt"
    write_scontrol(tmp_path / "bin", f'echo "$@" >> {asked}')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    handler = signal.getsignal(signal.SIGUSR1)
    yield asked
    assert signal.getsignal(signal.SIGUSR1) == handler


def write_scontrol(folder: Path, command: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / "scontrol"
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


def send_in_step(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ImageClassifier.training_step

    def wrapped(self: ImageClassifier, *args: Any) -> Tensor:
        if self.global_step == step:
            os.kill(os.getpid(), number)
        return original(self, *args)

    monkeypatch.setattr(ImageClassifier, "training_step", wrapped)


def test_the_notice_requeues_the_job_which_goes_on_with_the_same_bits(
    argv: list[str],
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*argv, "--log_dir", str(tmp_path / "whole")]) == 0
    assert not job.exists()
    logs = ("--log_dir", str(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        send_in_step(4, signal.SIGUSR1, patch)
        assert main([*argv, *logs]) == 128 + signal.SIGUSR1
    assert job.read_text() == "requeue 4711\n"
    assert capsys.readouterr().out.splitlines()[-1] == "SLURM will run job 4711 again"
    cut = tmp_path / "cut/small/version_0"
    assert torch.load(cut / LAST, weights_only=True)["global_step"] == 5
    assert main([*argv, *logs]) == 0
    assert_same_checkpoint(tmp_path / "whole/small/version_0" / LAST, cut / LAST)
    assert [path.name for path in cut.parent.iterdir()] == ["version_0"]
    assert not list(tmp_path.rglob("hpc_ckpt*"))


def test_a_task_of_an_array_is_requeued_by_its_own_number(
    argv: list[str], job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    send_in_step(0, signal.SIGUSR1, monkeypatch)
    assert main([*argv, "--log_dir", str(tmp_path)]) == 128 + signal.SIGUSR1
    assert job.read_text() == "requeue 4700_3\n"


def test_a_job_that_is_not_requeued_says_why_and_keeps_its_state(
    argv: list[str],
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_scontrol(tmp_path / "bin", "echo Job may not be requeued >&2; exit 1")
    send_in_step(0, signal.SIGUSR1, monkeypatch)
    assert main([*argv, "--log_dir", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()[-2:]
    assert told == [
        "error: SLURM did not requeue job 4711: Job may not be requeued",
        "  submit it again; with --ckpt_path auto it goes on",
    ]
    assert (tmp_path / "small/version_0" / LAST).is_file()


def test_sigterm_does_not_requeue(
    argv: list[str], job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_in_step(0, signal.SIGTERM, monkeypatch)
    assert main([*argv, "--log_dir", str(tmp_path)]) == 128 + signal.SIGTERM
    assert not job.exists()
    assert (tmp_path / "small/version_0" / LAST).is_file()
