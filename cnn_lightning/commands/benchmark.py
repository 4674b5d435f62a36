"""`benchmark`: how fast a config trains, each part beside a reference of its own."""

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cnn_lightning.commands.arguments import read_start
from cnn_lightning.commands.benchmarking.bare_loop import find_autocast
from cnn_lightning.commands.benchmarking.busyness import Busyness
from cnn_lightning.commands.benchmarking.data_path import measure_data_path
from cnn_lightning.commands.benchmarking.frozen import WholeEpochs
from cnn_lightning.commands.benchmarking.layouts import measure_layouts
from cnn_lightning.commands.benchmarking.memory import measure_memory
from cnn_lightning.commands.benchmarking.report import Measurement, describe_machine, tabulate
from cnn_lightning.commands.benchmarking.start_up import measure_start_up
from cnn_lightning.commands.benchmarking.training_step import MeasuredCLI, Race
from cnn_lightning.commands.messages import plain_errors
from cnn_lightning.commands.parser import Parser
from cnn_lightning.commands.training import silence
from cnn_lightning.console import say
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.files import write_text
from cnn_lightning.memory import memory_kept

PARTS = ("data", "step", "busyness", "layout", "memory", "startup", "features")

_DESCRIPTION = """
Measure how fast a config trains, each part by turns with a reference: the data path against
torchvision's PIL images and worker processes; training steps through the Trainer, with all
callbacks and loggers of `fit`, against a bare loop, and how busy both keep a GPU; the layout of
batches in memory against the other; memory kept for the next step against memory given back;
start-up, peak memory and checkpoints; with a frozen backbone, later epochs against the first. The
ratios are the result.
Options of `fit` are taken too; several --config are stacked as there.
"""


def main(command: str, argv: list[str]) -> int:
    """Measure what a command line names; returns the exit code."""
    own, rest = _make_parser(command).parse_known_args(argv)
    parts = _check(own, rest)
    silence()
    with plain_errors(command), tempfile.TemporaryDirectory(prefix="cnn-lightning-") as folder:
        measured, remarks, facts = _measure(parts, own, [*rest, "--log_dir", folder])
    title = f"{_name(rest)}: medians over {own.repeats} repeats, the ratio is the result"
    is_terminal = sys.stdout.isatty()
    Console(width=None if is_terminal else 160).print(tabulate(measured, title))
    for remark in remarks:
        say(remark)
    if own.output is not None:
        content = {
            "command": ["cnn-lightning", command, *argv],
            "repeats": own.repeats,
            "measurements": [one.as_dict() for one in measured],
            "remarks": remarks,
            **facts,
        }
        _write(own.output, json.dumps(content, indent=2) + "\n")
    return 0


def _make_parser(command: str) -> Parser:
    parser = Parser(command, _DESCRIPTION)
    parser.usage = f"{parser.prog} --config FILE [--config FILE …] [options] [options of fit]"
    parser.add_argument("--output", type=Path, help="JSON file for all figures (default: none)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="how often each is measured (default: 5)"
    )
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"what to measure, by commas (default: {','.join(PARTS)})",
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="batches of an epoch; 0 (default) takes all"
    )
    parser.add_argument(
        "--turn",
        type=int,
        default=0,
        help="training steps before it is the bare loop's turn; 0 (default) takes epochs",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of torchvision's loader (default: 2)"
    )
    return parser


def _check(own: Namespace, rest: Sequence[str]) -> list[str]:
    parts: list[str] = own.parts.split(",")
    for part in parts:
        if part not in PARTS:
            raise UserError(f"--parts: there is no part {part!r}", f"use some of {','.join(PARTS)}")
    for name, least in (("repeats", 1), ("steps", 0), ("turn", 0), ("workers", 0)):
        if getattr(own, name) < least:
            raise UserError(f"--{name} is {getattr(own, name)}", f"give at least {least}")
    if own.output is not None and own.output.suffix != ".json":
        raise UserError(f"--output {own.output} is no JSON file", "give a name ending in .json")
    flags = {arg.partition("=")[0] for arg in rest}
    if "--ckpt_path" in flags:
        raise UserError("benchmark starts from new weights", "leave --ckpt_path out")
    return parts


def _measure(
    parts: Sequence[str], own: Namespace, argv: list[str]
) -> tuple[list[Measurement], list[str], dict[str, Any]]:
    """Measurements, remarks to print, and what they were made with."""
    limited = [*argv, "--trainer.limit_train_batches", str(own.steps)] if own.steps else argv
    built = MeasuredCLI(read_start("fit", argv), runs=False)
    classifier, data = built.model, built.datamodule
    try:
        data.setup("fit")
    except MissingDataError:
        data.prepare_data()
        data.setup("fit")
    classifier.adapt_to(data)
    device = built.trainer.strategy.root_device
    facts = {
        "machine": describe_machine(device),
        "config": yaml.safe_load(built.dump_settings()),
    }
    keeps_memory = bool(built.config["fit"].keep_memory)
    measured: list[Measurement] = []
    remarks: list[str] = []
    if "data" in parts:
        say("data path")
        with memory_kept(device, keep=keeps_memory):  # as fit does
            measured.append(
                measure_data_path(
                    data, device, repeats=own.repeats, steps=own.steps, workers=own.workers
                )
            )
    epochs = ["--trainer.max_epochs", str(own.repeats + 1)]
    if "step" in parts:
        say("training step")
        race = Race(own.turn)
        MeasuredCLI(read_start("fit", [*limited, *epochs]), [race])
        measured += race.measurements()
        facts["training"] = race.facts
    if "busyness" in parts and device.type != "cuda":
        remarks.append("how busy it is can be measured of an NVIDIA GPU alone")
    elif "busyness" in parts:
        say("busyness of the GPU")
        busyness = Busyness()
        MeasuredCLI(read_start("fit", [*limited, *epochs]), [busyness])
        measured.append(busyness.measurement())
    dtype = find_autocast(built.trainer.precision)
    if "layout" in parts:
        say("layout in memory")
        with memory_kept(device, keep=keeps_memory):
            measured.append(
                measure_layouts(classifier, data, device, dtype=dtype, repeats=own.repeats)
            )
    if "memory" in parts:
        say("memory of a step")
        found = measure_memory(classifier, data, device, dtype=dtype, repeats=own.repeats)
        if found is None:
            remarks.append("memory is kept only on a CPU, and only that which glibc hands out")
        else:
            measured.append(found)
    if "startup" in parts:
        say("start-up")
        measured += measure_start_up(limited, repeats=own.repeats)
    if "features" in parts and classifier.freeze_part is None:
        remarks.append("no frozen backbone, so no features that later epochs could reuse")
    elif "features" in parts:
        say("frozen backbone")
        watch = WholeEpochs()
        MeasuredCLI(read_start("fit", [*argv, *epochs]), [watch])
        measured.append(watch.measurement())
    return measured, remarks, facts


def _name(argv: Sequence[str]) -> str:
    places = [place for place, arg in enumerate(argv) if arg in ("--config", "-c")]
    paths = [argv[place + 1] for place in places]
    paths += [arg.partition("=")[2] for arg in argv if arg.startswith("--config=")]
    return " + ".join(Path(path).stem for path in paths) or "benchmark"


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}", "give another --output"
        ) from error
    say(str(path))
