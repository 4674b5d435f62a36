"""The command line: finds the asked-for command, imports it alone, prints its errors."""

import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from cnn_lightning.console import rank
from cnn_lightning.deferral import absent, deferred
from cnn_lightning.errors import Interrupted, RunError, SharedRunError, UserError
from cnn_lightning.imports import allow_modules

COMMANDS = {
    "fit": ("training", "train a network, or go on with a run"),
    "validate": ("training", "accuracy of a checkpoint on the validation images"),
    "test": ("training", "accuracy of a checkpoint on the test images"),
    "predict": ("training", "classes of your own pictures, or of the test images"),
    "tune": ("tune", "a learning rate or a batch size to train with, found by trying"),
    "show": ("show", "pictures and numbers of a data set"),
    "convolve": ("convolve", "what a kernel or a pooling does to an image, worked out by hand"),
    "inspect": ("inspect", "where a network looks, its feature maps, kernels and layers"),
    "compare": ("compare", "runs in one table and one figure, and as a page to mail"),
    "export": ("export", "a checkpoint as ONNX or torch.export file, checked against the original"),
    "benchmark": ("benchmark", "how fast a config trains, beside references"),
}

EXIT_FAILURE, EXIT_USER_ERROR = 1, 2


def run() -> NoReturn:
    """Run the command of `sys.argv` and leave with its exit code."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: The command and its arguments, without the program's name.

    Returns:
        0 for success, 1 for a failure in the run, 2 for a mistake of the user, 130 or 143 for a run
        stopped by Ctrl-C or SIGTERM.
    """
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if argv[0] == "--version":
        from cnn_lightning import __version__

        sys.stdout.write(f"cnn-lightning {__version__}\n")
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise UserError(
                f"there is no command {argv[0]!r}", f"use one of {', '.join(COMMANDS)}, or --help"
            )
        modules, arguments = _take_modules(argv[1:])
        with _heeding_signals(), allow_modules(modules):
            if "torch" not in sys.modules:
                _check_early(argv[0], arguments)
            # seconds that torchmetrics spends to give it this name back
            with deferred("scipy.signal", hamming=None), _without_triton():
                module = importlib.import_module(f"cnn_lightning.commands.{COMMANDS[argv[0]][0]}")
            return int(module.main(argv[0], arguments))
    except (UserError, RunError) as error:
        if os.environ.get("CNN_LIGHTNING_DEBUG") == "1":
            traceback.print_exc()
        if rank() == 0 or not isinstance(error, SharedRunError):
            sys.stderr.write(f"error: {error}\n")
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILURE
    except SystemExit as leaving:  # after --help
        return int(leaving.code or 0)
    except Interrupted as interruption:
        sys.stderr.write(f"{interruption}\n")
        return interruption.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001  # the last place to turn a failure into an exit code
        return _report_failure(error)


def _check_early(command: str, arguments: list[str]) -> None:
    if command == "show" or COMMANDS[command][0] == "training":
        from cnn_lightning.commands.early import check_early

        check_early(command, arguments, own_flags=command != "show")


def _report_failure(error: Exception) -> int:
    from cnn_lightning.files import explain_disk_failure, explain_no_access  # imports torch

    failure = explain_disk_failure(error) or explain_no_access(error)
    if failure is None or os.environ.get("CNN_LIGHTNING_DEBUG") == "1":
        traceback.print_exc()
    if failure is not None:
        sys.stderr.write(f"error: {failure}\n")
    return EXIT_USER_ERROR if isinstance(failure, UserError) else EXIT_FAILURE


@contextmanager
def _without_triton() -> Iterator[None]:
    """Keep torch from importing a compiler for GPUs, of 80 MB in memory, where there is no GPU."""
    import torch

    if torch.accelerator.is_available():
        yield
        return
    # warns that it cannot count operations of triton's
    counting = logging.getLogger("torch.utils.flop_counter")
    counting.disabled = True
    try:
        with absent("triton"):
            yield
    finally:
        counting.disabled = False


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM leave the block as `Interrupted`, whatever it is doing."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise Interrupted(number)


def _take_modules(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules after `--allow_modules`, and the other arguments.

    Read here, before any config: a config must never be able to set it.
    """
    modules, others = [], []
    arguments = iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == "--allow_modules":
            modules += (value if equals else next(arguments, "")).split(",")
        else:
            others.append(argument)
    return modules, others


def _help() -> str:
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: cnn-lightning COMMAND [options]",
            "",
            "Understand, train and trust convolutional networks.",
            "",
            *lines,
            "",
            "Begin with:  cnn-lightning fit --config configs/quickstart.yaml",
            "Options of a command:  cnn-lightning COMMAND --help",
            "Of every command:  --allow_modules NAME[,NAME] lets configs and checkpoints name",
            "  classes of these modules too, your own files for example; their code is run",
            "",
        ]
    )
