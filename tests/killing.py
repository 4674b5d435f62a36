"""Runs of `fit` in processes of their own that can be killed, and what is compared of them.

Importing the package takes seconds; a server that has imported it forks each process.
"""

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from compare import differences
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision import models

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.cli import main
from cnn_lightning.runs import RunFolder, versions

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cnn_lightning.commands.training", "cnn_lightning.loggers"])

# augmented, dropped out, a schedule by the step, feature maps; 270 images are nine steps of 30
LENET: dict[str, Any] = {
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {"num_images": 300, "num_test": 20, "batch_size": 30, "augment": "crop_flip"},
    },
    "model": {"class_path": "LeNet", "init_args": {"activation": "relu", "dropout": 0.5}},
    "schedule": {"class_path": "OneCycleLR", "init_args": {"max_lr": 0.1}},
    "feature_maps": {"every_n_epochs": 1, "layers": "first", "max_channels": 4},
    "kernels": {"every_n_epochs": 0},
    "activation_statistics": {"every_n_epochs": 0},
    "checkpoint": {"every_n_steps": 4},
    "trainer": {"max_epochs": 3, "log_every_n_steps": 2},
}
STEPS = 27
# the smallest network of torchvision, its features kept
FROZEN: dict[str, Any] = {
    **LENET,
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {"num_images": 300, "num_test": 20, "batch_size": 30, "augment": "none"},
    },
    "model": {
        "class_path": "TorchvisionClassifier",
        "init_args": {"name": "shufflenet_v2_x0_5", "freeze": "backbone", "image_size": 32},
    },
}


@dataclass(frozen=True)
class Recipe:
    """A config that is run under several names.

    Args:
        path: The config file.
        log_dir: Folder of the runs.
    """

    path: Path
    log_dir: Path

    def folder(self, run: str) -> RunFolder:
        return versions(self.log_dir, run)[-1]

    def arguments(self, run: str, *more: str) -> list[str]:
        config = ["--config", str(self.path), "--log_dir", str(self.log_dir)]
        return ["fit", *config, "--run", run, *more]

    def start(self, run: str, *more: str, hook: Callable[[], None] | None = None) -> "Process":
        return Process(self.arguments(run, *more), self.log_dir / f"{run}.txt", hook)


def make_recipe(config: dict[str, Any], root: Path) -> Recipe:
    """Write a config and run it once as `whole`."""
    recipe = write_recipe(config, root)
    process = recipe.start("whole")
    assert process.wait() == 0, process.output
    return recipe


def write_recipe(config: dict[str, Any], root: Path) -> Recipe:
    """Write a config, and the weights that it asks for."""
    if config is FROZEN:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.save(models.shufflenet_v2_x0_5().state_dict(), root / "weights.pt")
        given = {**config["model"]["init_args"], "weights": str(root / "weights.pt")}
        config = {**config, "model": {**config["model"], "init_args": given}}
    (root / "small.yaml").write_text(yaml.safe_dump(config))
    recipe = Recipe(root / "small.yaml", root / "logs")
    recipe.log_dir.mkdir()
    return recipe


class Process:
    """One command line, running; `steps` are the optimizer steps that it began.

    Args:
        argv: The command and its arguments.
        out: Where its output and errors go, after what is there.
        hook: What the process does before the command.
    """

    def __init__(self, argv: list[str], out: Path, hook: Callable[[], None] | None = None) -> None:
        self._out = out
        self._steps = out.with_suffix(".steps")
        self._begun = len(self.output), len(self.all_steps)
        self._process = SERVER.Process(target=_run, args=(argv, out, self._steps, hook))
        self._process.start()
        self._started = time.monotonic()

    @property
    def output(self) -> str:
        """What this process and those before it have written."""
        return self._out.read_text() if self._out.exists() else ""

    @property
    def own_output(self) -> str:
        return self.output[self._begun[0] :]

    @property
    def all_steps(self) -> list[int]:
        """The steps that this process and those before it have begun."""
        return list(map(int, self._steps.read_text().split())) if self._steps.exists() else []

    @property
    def steps(self) -> list[int]:
        return self.all_steps[self._begun[1] :]

    def signal_at(self, step: int, delay: float, number: signal.Signals) -> tuple[int, float]:
        """Send a signal some time after a step began, unless the process ends before.

        Args:
            step: Counted from 0; below that, the delay counts from the start.
            delay: Seconds.
            number: The signal.

        Returns:
            The exit code, and when the signal was sent, in seconds since the start.
        """
        while step >= 0 and step not in self.steps and self._process.is_alive():
            self._process.join(0.002)
        self._process.join(delay)
        moment = time.monotonic() - self._started
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)
        return self.wait(), moment

    def wait(self) -> int:
        """The exit code, negative for a signal that ended the process."""
        self._process.join(300)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"the process did not end: {self.output}")
        return self._process.exitcode


def _run(argv: list[str], out: Path, steps: Path, hook: Callable[[], None] | None) -> None:
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    # before the command itself listens, a process ends as any other does
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    torch.set_num_threads(1)
    record = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    training_step = ImageClassifier.training_step

    def recorded(classifier: ImageClassifier, *args: Any) -> torch.Tensor:
        os.write(record, f"{classifier.trainer.global_step}\n".encode())
        return training_step(classifier, *args)

    ImageClassifier.training_step = recorded  # type: ignore[method-assign]  # for its last hours
    if hook is not None:
        hook()
    code = main(argv)
    sys.stdout.flush()
    os._exit(code)


def run_pair(argv: list[str], out: Path) -> list[int]:
    """Run a command line as two processes of one run; their exit codes.

    Nothing starts them but this, as under a cluster's own launcher; starting Python and importing
    the package would take most of the time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hooks = [partial(be_one_of_two, rank, port) for rank in (0, 1)]
    pair = [Process(argv, out.with_stem(f"{out.stem}_{i}"), hook) for i, hook in enumerate(hooks)]
    return [process.wait() for process in pair]


def be_one_of_two(rank: int, port: int) -> None:
    """A hook: this process is one of two that find one another at a port."""
    names = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    os.environ.update(zip(names, (str(rank), "0", "2", "127.0.0.1", str(port)), strict=True))


def run_code(
    command: list[str], *, env: dict[str, str], **kwargs: object
) -> subprocess.CompletedProcess[str]:
    """Stand in for `subprocess.run` of `python -c CODE ARGUMENTS…`, its imports already done."""
    process = SERVER.Process(target=_run_code, args=(command[2], command[3:], env))
    process.start()
    process.join(300)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(command, process.exitcode, "", "")


def _run_code(code: str, arguments: list[str], env: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ.update(env)
    sys.argv[1:] = arguments
    exec(code, {"__name__": "__main__"})


def stop_at(step: int) -> None:
    """A hook: this process gets SIGTERM while it is at a step."""
    before = ImageClassifier.training_step

    def stopped(classifier: ImageClassifier, *args: Any) -> torch.Tensor:
        if classifier.trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(classifier, *args)

    ImageClassifier.training_step = stopped  # type: ignore[method-assign]  # for its last hours


def different(first: RunFolder, second: RunFolder) -> list[str]:
    """What differs between two runs that should have ended with the same bits."""
    found = [
        f"{name}: {line}"
        for name in ("last.ckpt", "best.ckpt")
        for line in differences(
            *(torch.load(run.checkpoints / name, weights_only=True) for run in (first, second))
        )
    ]
    tables = [rows(run) for run in (first, second)]
    steps = [row["step"] for row in tables[1]]
    if steps != sorted(set(steps), key=int):
        found.append(f"metrics.csv has steps {steps}")
    if tables[0] != tables[1]:
        found.append(f"metrics.csv: {tables[0]} and {tables[1]}")
    pictures = [
        {path.relative_to(run.figures): path.read_bytes() for path in run.figures.rglob("*.png")}
        for run in (first, second)
    ]
    if not pictures[0] or pictures[0] != pictures[1]:
        found.append("pictures differ")
    curves = [_curves(run) for run in (first, second)]
    if curves[0] != curves[1]:
        found.append(f"TensorBoard: {curves[0]} and {curves[1]}")
    return found + [f"left over: {path}" for path in second.path.rglob("*.part")]


def rows(run: RunFolder) -> list[dict[str, str]]:
    """`metrics.csv` without what the clock decides."""
    with run.metrics.open(newline="") as stream:
        return [
            {key: value for key, value in row.items() if key != "images_per_second"}
            for row in csv.DictReader(stream)
        ]


def _curves(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.path), size_guidance={"images": 0})
    events.Reload()
    kinds = events.Tags()
    curves = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in kinds["scalars"]
        if tag != "images_per_second"
    }
    pictures = {tag: [(event.step, 0.0) for event in events.Images(tag)] for tag in kinds["images"]}
    return {**curves, **pictures}


def print_table(title: str, table: list[list[str]]) -> None:
    """Print rows of texts in columns; pytest shows it with -s."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    sys.stdout.write(f"\n{title}\n")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
