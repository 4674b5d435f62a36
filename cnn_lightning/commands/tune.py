"""`tune`: a learning rate, or a batch size, to train with."""

import argparse
import math
import shlex
import sys
import tempfile
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.tuner.tuning import Tuner
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from typing_extensions import override

from cnn_lightning.analysis.activations import evaluating, listening
from cnn_lightning.analysis.learning_rates import RangeTest, read_range_test
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.commands.arguments import Start
from cnn_lightning.commands.configs import read_configs
from cnn_lightning.commands.endings import explained
from cnn_lightning.commands.messages import plain_errors
from cnn_lightning.commands.parser import Parser
from cnn_lightning.commands.rate_sweep import RateSweep
from cnn_lightning.commands.training import TrainingCLI, silence
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import RunError, UserError
from cnn_lightning.figures import draw_range_test, to_png
from cnn_lightning.files import write_bytes
from cnn_lightning.imports import own_modules
from cnn_lightning.runs import RunFolder

FIRST_BATCH = 16
_MAX_BATCH = 8192
_NEVER = 10**9  # epochs


def main(command: str, argv: list[str]) -> int:
    """Run `tune`; returns the exit code."""
    own, rest = _parse(command, argv)
    silence()
    config_paths, _ = read_configs(rest)
    if any(arg.partition("=")[0] == "--ckpt_path" for arg in rest):
        raise UserError("tune reads no checkpoint", "leave --ckpt_path out")
    start = Start(command, rest, RunFolder(Path("logs/tune/version_0")))
    with (
        tempfile.TemporaryDirectory(prefix="cnn-lightning-") as scratch,
        explained(start, argv),
        plain_errors(command),
    ):
        cli = TuneCLI(rest, Path(scratch), own.steps)
        if own.batch_size:
            _tune_batch_size(cli, own, rest)
            return 0
        tested = find_learning_rate(
            cli.model, cli.datamodule, cli.trainer, own.min_lr, own.max_lr, own.steps
        )
    settings = cli.config["fit"]
    stem = config_paths[0].stem if config_paths else type(cli.model).__name__
    folder = own.output or Path(settings.log_dir) / "tune" / (settings.run or stem)
    _report_learning_rate(tested, folder / "learning_rate.png", stem, own, rest)
    return 0


def _parse(command: str, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(
        command,
        "Find a learning rate: train for some steps with ever higher rates, draw the loss by rate, "
        "and suggest the rate at which it falls steepest (Smith 2017). With --batch_size: find the "
        "largest batch that fits into memory, by doubling. Every option of `fit` is taken too; "
        "nothing of the trained weights is kept, and no callback takes part.",
    )
    parser.usage = f"{parser.prog} --config FILE [--batch_size] [options]"
    parser.add_argument("--min_lr", type=float, default=1e-6, help="first rate (default: 1e-6)")
    parser.add_argument("--max_lr", type=float, default=10.0, help="last rate (default: 10)")
    parser.add_argument(
        "--steps", type=int, default=300, help="optimizer steps between them (default: 300)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="where the picture goes (default: logs/tune/<config>)",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", action="store_true", help="find the batch size, not the learning rate"
    )
    parser.add_argument(
        "--max_batch_size", type=int,
        help=f"where to end the search (default: {_MAX_BATCH}; to be given on a CPU)",
    )  # fmt: skip
    own, rest = parser.parse_known_args(argv)
    if not 0 < own.min_lr < own.max_lr < float("inf"):
        raise UserError(
            f"--min_lr {own.min_lr:g} and --max_lr {own.max_lr:g} are no range",
            "give two numbers above 0, the lower one first",
        )
    if own.steps < 20:
        raise UserError(f"--steps is {own.steps}", "give at least 20")
    if own.max_batch_size is not None and own.max_batch_size <= FIRST_BATCH:
        raise UserError(
            f"--max_batch_size is {own.max_batch_size}", f"give more than {FIRST_BATCH}"
        )
    return own, rest


class TuneCLI(TrainingCLI):
    """Builds what `fit` would train, with a bare trainer that writes to a scratch folder alone.

    Args:
        argv: What `fit` would be given.
        scratch: For the tuner's own checkpoints.
        steps: Optimizer steps that there must be time for.
    """

    model: ImageClassifier
    datamodule: ImageDataModule

    def __init__(self, argv: list[str], scratch: Path, steps: int) -> None:
        self._scratch = scratch
        self._steps = steps
        super().__init__("fit", Start("fit", argv, RunFolder(scratch / "version_0")))

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self._parser("fit").callback_keys.clear()
        trainer = LightningCLI.instantiate_trainer(
            self,
            default_root_dir=str(self._scratch),
            callbacks=[],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            fast_dev_run=False,
            # an epoch has one step at least, and the tuner ends the run itself
            max_epochs=self._steps,
            max_steps=-1,
            max_time=None,
            num_sanity_val_steps=0,
            val_check_interval=1.0,
            check_val_every_n_epoch=_NEVER,
        )
        if trainer.world_size > 1:
            raise UserError(
                f"tune runs in one process, not in {trainer.world_size}",
                "add --trainer.devices 1 --trainer.num_nodes 1",
            )
        return trainer

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: the tuner runs it."""


def find_learning_rate(
    classifier: ImageClassifier,
    data: ImageDataModule,
    trainer: Trainer,
    lowest: float,
    highest: float,
    steps: int,
) -> RangeTest:
    """Train with ever higher learning rates; the weights come back as they were.

    Args:
        classifier: Trained.
        data: Its images.
        trainer: One that has time for the steps; it is of no use afterwards.
        lowest: First rate, above 0.
        highest: Last rate.
        steps: Optimizer steps, each with a rate that is higher by the same factor.

    Raises:
        RunError: The loss was not finite from the first steps on.
        UserError: The optimizer's `lr` steps nothing.
    """
    before = deepcopy(classifier.state_dict())
    trainer.fit_loop.epoch_loop.max_steps = steps
    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("learning rates", total=steps)
        sweep = RateSweep(lowest, highest, steps, partial(progress.advance, task))
        trainer.callbacks = [sweep]  # type: ignore[attr-defined]  # Lightning's own
        trainer.fit(classifier, datamodule=data)
    classifier.load_state_dict(before)
    try:
        return read_range_test(sweep.rates, sweep.losses, _guess(classifier))
    except ValueError as error:
        raise RunError(f"the loss is not finite: {error}", "give a lower --min_lr") from error


def _guess(classifier: ImageClassifier) -> float:
    """The training loss of who finds all classes alike probable."""
    heads = 1.0
    network = classifier.network
    if network.auxiliary_weight and classifier.freeze_part is None:
        with evaluating(network):
            auxiliary = network.auxiliary_logits(cast(Tensor, classifier.example_input_array))[1]
        heads += network.auxiliary_weight * len(auxiliary)
    return heads * math.log(classifier.num_classes)


def find_batch_size(
    classifier: ImageClassifier, data: ImageDataModule, trainer: Trainer, limit: int
) -> tuple[int, bool]:
    """Double the batch until the memory does not hold it; the weights come back as they were.

    Args:
        classifier: Trained for three steps with each size.
        data: Its images; its batch size is set.
        trainer: One that has time for the steps.
        limit: Larger sizes are not tried, nor such of more than all training images.

    Returns:
        The largest size that ran, and whether the next one ran out of memory.

    Raises:
        UserError: There are too few training images for a search.
    """
    data.setup("fit")
    limit = min(limit, len(data.stage_indices("train")))
    if limit <= FIRST_BATCH:
        raise UserError(f"{limit} training images are too few for a search", "add images")
    # the tuner would run its first trial with the batches that there are
    data.batch_size = FIRST_BATCH
    ran: set[int] = set()
    network = classifier.network
    with listening(
        {"watched": network.first_conv or network.head}, lambda _, output: ran.add(len(output))
    ):
        found = Tuner(trainer).scale_batch_size(
            classifier, datamodule=data, init_val=FIRST_BATCH, max_val=limit + 1
        )
    assert found is not None  # noqa: S101  # it is under fast_dev_run alone
    # where the search ends at the limit, the tuner names a size that it has not tried
    doubled = {2**power for power in range(1, limit.bit_length())}
    return max(size for size in ran & doubled if size <= found), found < limit


def _report_learning_rate(
    tested: RangeTest, path: Path, name: str, own: argparse.Namespace, rest: list[str]
) -> None:
    steps = len(tested.rates)
    title = f"{name}: loss over {steps} steps with ever higher learning rates"
    figure = draw_range_test(
        tested.rates, tested.losses, tested.smoothed, title, suggestion=tested.suggestion
    )
    write_bytes(path, to_png(figure))
    say(str(path))
    if tested.suggestion is None:
        raise RunError(
            f"no rate from {own.min_lr:g} to {own.max_lr:g} makes the loss fall by a tenth, and a "
            "tenth below that of a guess",
            f"look at {path}; more --steps give each rate more time",
        )
    rate = f"{tested.rates[tested.suggestion]:.2g}"
    say(f"learning rate {rate}: there the loss falls steepest")
    say(f"use it: {_command('fit', rest, '--optimizer.init_args.lr', rate)}")


def _tune_batch_size(cli: TuneCLI, own: argparse.Namespace, rest: list[str]) -> None:
    if cli.trainer.strategy.root_device.type == "cpu" and own.max_batch_size is None:
        raise UserError(
            "on a CPU the system ends a program that takes too much memory, so that the largest "
            "batch cannot be found by trying",
            "say how far to go: --max_batch_size 512",
        )
    limit = own.max_batch_size or _MAX_BATCH
    size, is_full = find_batch_size(cli.model, cli.datamodule, cli.trainer, limit)
    why = "twice as many images run out of memory"
    if not is_full:
        why = f"it fits; larger ones were not tried (--max_batch_size {limit}, or the images end)"
    say(f"batch size {size}: {why}")
    chosen = ("--data.batch_size", str(size))
    say(f"use it: {_command('fit', rest, *chosen)}")
    say(f"the learning rate that goes with it: {_command('tune', rest, *chosen)}")


def _command(command: str, rest: list[str], *more: str) -> str:
    own = ",".join(own_modules())
    allowed = ["--allow_modules", own] if own else []
    return shlex.join(["cnn-lightning", command, *allowed, *rest, *more])
