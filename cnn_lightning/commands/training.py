"""`fit`, `validate`, `test` and `predict`: LightningCLI with this project's defaults."""

import logging
import os
import shlex
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import SUPPRESS, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from cnn_lightning import callbacks, slurm
from cnn_lightning.checkpoint_content import Content
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.optimization import DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from cnn_lightning.commands.arguments import Start, read_start
from cnn_lightning.commands.arithmetic import (
    describe,
    find_slowness,
    float32_products,
    refuse_other_precision,
    settle_arithmetic,
)
from cnn_lightning.commands.checks import (
    check_groups,
    check_length,
    check_named,
    check_nulls,
    check_numbers,
    check_ranges,
)
from cnn_lightning.commands.configs import LINKED, asks_for_help, names_class
from cnn_lightning.commands.endings import explained, report_interruption, report_loss
from cnn_lightning.commands.equipment import choose_callbacks, choose_loggers, choose_plugins
from cnn_lightning.commands.importing import check_classes
from cnn_lightning.commands.messages import plain_building, plain_errors
from cnn_lightning.commands.micro_batches import settle_batches
from cnn_lightning.commands.options import CALLBACK_GROUPS, DEFAULT_SEED, GENERAL, TRAINING_ONLY
from cnn_lightning.commands.preparation import expect_its_shape, keep_preparation
from cnn_lightning.commands.results import result_lines
from cnn_lightning.commands.resuming import check_restorable, check_resumable, go_on_by_epochs
from cnn_lightning.commands.thrift import (
    LeanTrainer,
    NoProfiler,
    StepHooks,
    keep_loss_plain,
    looks_remembered,
    skip_clipping,
    skip_empty_hooks,
    startup_set_aside,
)
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import Interrupted
from cnn_lightning.files import remove_parts, write_text
from cnn_lightning.loggers import EventFiles, MetricsTable
from cnn_lightning.memory import can_keep_memory, memory_kept
from cnn_lightning.processes import GiveUp, watch_processes
from cnn_lightning.runs import RunFolder, claim_version, drop_version, going_on
from cnn_lightning.settings import to_yaml

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 10,
    "log_every_n_steps": 50,
    "num_sanity_val_steps": 0,
}
_GROUPS: dict[str, type[Callback]] = {
    key: getattr(callbacks, name) for key, name in CALLBACK_GROUPS.items()
}
_WITH_FOLDER = (
    callbacks.BadNumbers,
    callbacks.BestCheckpoint,
    callbacks.EpochPictures,
    callbacks.FeatureCache,
    callbacks.LastCheckpoint,
    callbacks.PredictionGrid,
    callbacks.SameFolder,
    EventFiles,
    MetricsTable,
)
# what TensorBoard lists beside the metrics
_SETTINGS = ("seed_everything", "data", "model", "optimizer", "schedule", "trainer")
_TRAINER_SETTINGS = ("max_epochs", "precision", "gradient_clip_val", "accumulate_grad_batches")
# the schedule is told these, so nobody counts steps
_LENGTHS = {"optimizer", "total_steps", "T_max", "total_iters"}


def main(command: str, argv: list[str]) -> int:
    """Run one of Lightning's four commands; returns the exit code."""
    silence()
    if asks_for_help(argv):
        return _show_help(command, argv)
    start = read_start(command, argv)
    with slurm.heeding_notice() if command == "fit" and slurm.is_job() else nullcontext():
        return _run(command, start, argv)


def _run(command: str, start: Start, argv: list[str]) -> int:
    try:
        with explained(start, argv), plain_errors(command):
            TrainingCLI(command, start, partial(report_loss, start, argv))
    except Interrupted as interruption:
        return report_interruption(interruption, start, argv)
    except SystemExit as leaving:
        # before the first step, Lightning itself catches Ctrl-C and leaves with 1
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise leaving.__context__ from None
        raise
    return 0


class TrainingCLI(LightningCLI):
    """LightningCLI for one command, with run folders, honest resuming and short configs.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        start: What the command line asks for, its checkpoint found and read.
        tell: Says how a run ended whose processes are no longer all there; `None` starts no watch.
    """

    def __init__(self, command: str, start: Start, tell: GiveUp | None = None) -> None:
        self.command = command
        self.start = start
        self._tell = tell
        self._asked: Namespace  # the settings of a training, before batches go in parts
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            save_config_callback=None,
            trainer_class=LeanTrainer,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=DEFAULT_SEED,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            args=[command, *start.arguments],
            auto_configure_optimizers=False,
            # hyperparameters are plain values here, and load without the parser
            load_from_checkpoint_support=False,
        )

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in the parent
        # building the parsers of all four takes four times as long
        return {self.command: LightningCLI.subcommands()[self.command]}

    @override
    def _setup_parser_kwargs(self, parser_kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return parser_kwargs, {self.command: dict(parser_kwargs)}

    @override
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, (kind, default, text, only) in GENERAL.items():
            if only in (None, self.command):
                parser.add_argument(f"--{name}", type=kind, default=default, help=text)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if self.command == "fit":
            for key, callback in _GROUPS.items():
                parser.add_lightning_class_args(callback, key)
            parser.add_subclass_arguments(
                (Optimizer,), "optimizer", instantiate=False, fail_untyped=False, skip={"params"}
            )
            parser.add_subclass_arguments(
                (LRScheduler,), "schedule", instantiate=False, fail_untyped=False, skip=_LENGTHS
            )
            for key, default in (("optimizer", DEFAULT_OPTIMIZER), ("schedule", DEFAULT_SCHEDULE)):
                # else another class would be given what it shares with the default
                if not names_class(key, self.start.arguments):
                    parser.set_defaults({key: default})
                parser.link_arguments(key, f"model.init_args.{key}", compute_fn=_plain)
        else:
            for key in TRAINING_ONLY:  # a recipe may hold them
                parser.add_argument(f"--{key}", type=Any, default=None, help=SUPPRESS)
        for source, target in LINKED.items():
            parser.link_arguments(source, target, apply_on="instantiate")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # a list, see __init__
        settings = self.config[self.command]
        if self.command != "fit":
            for key in TRAINING_ONLY:
                settings.pop(key, None)
        groups: dict[str, type] = {
            "trainer": Trainer,
            **(_GROUPS if self.command == "fit" else {}),
        }
        check_groups(settings, groups)
        check_classes(settings)
        check_numbers(settings)
        check_ranges(settings)
        if self.command == "fit":
            check_named(settings, ("optimizer", "schedule"))
            check_length(settings.trainer, is_new=self.start.checkpoint is None)
        check_nulls(settings)
        for group, kind in groups.items():
            check_nulls(settings[group], group, kind)

    @override
    def instantiate_classes(self) -> None:
        with plain_building(self.command):
            super().instantiate_classes()
        if (checkpoint := self.start.checkpoint) is not None:
            expect_its_shape(self.datamodule, checkpoint)

    @override
    def _parse_ckpt_path(self) -> None:
        """Nothing: what the checkpoint knows is below what the user wrote, in `Start`."""

    @override
    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        refuse_other_precision(config.trainer)
        if self.start.checkpoint is not None:
            keep_preparation(config, self.start.known, self.start.checkpoint)
        if self.command == "fit":
            is_resumed = self.start.checkpoint is not None
            settle_arithmetic(config.trainer, cpu_bf16=config.cpu_bf16, is_resumed=is_resumed)
            self._asked = config.clone()
            settle_batches(config, self.start)
            if is_resumed:
                for line in self.start.changes(yaml.safe_load(self.dump_settings())):
                    say(line)
        if (slowness := find_slowness(config.trainer)) is not None:
            say(slowness)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        settings = self.config_init[self.command]
        config, folder = settings.trainer, self.start.folder
        if config.enable_checkpointing is False:
            self._parser(self.command).callback_keys.remove("checkpoint")
        kwargs["callbacks"] = choose_callbacks(self.command, settings, folder, self._backend())
        kwargs["plugins"] = choose_plugins(config.get("plugins"))
        # a new run goes on with no curve of another
        step = None if self.command == "fit" and self.start.is_new else self.start.step
        loggers = choose_loggers(self.command, config.get("logger"), folder, step)
        if loggers is not None:
            kwargs["logger"] = loggers
        if config.get("profiler") is None:
            kwargs["profiler"] = NoProfiler()
        trainer = super().instantiate_trainer(**kwargs)
        skip_clipping(trainer, self.model)
        skip_empty_hooks(self.model)
        keep_loss_plain(trainer)
        go_on_by_epochs(trainer)
        self._set_folder(trainer, folder)
        if self.command == "fit" and settings.keep_memory:
            trainer.callbacks.append(callbacks.KeptMemory())  # type: ignore[attr-defined]  # after those that draw
        if trainer.world_size > 1:
            same = callbacks.SameFolder(folder, partial(self._set_folder, trainer))
            trainer.callbacks.insert(0, same)  # type: ignore[attr-defined]  # Lightning's own
            if self._tell is not None:
                watch_processes(trainer, self._tell)
        return trainer

    def _set_folder(self, trainer: Trainer, folder: RunFolder) -> None:
        self.start.folder = folder
        for one in (*trainer.callbacks, *trainer.loggers):  # type: ignore[attr-defined]  # Lightning's own
            if isinstance(one, _WITH_FOLDER):
                one.folder = folder
            if isinstance(one, callbacks.LastCheckpoint) and slurm.is_job():
                one.signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        tf32 = self.config[subcommand].tf32
        device = self.trainer.strategy.root_device
        hooks = StepHooks(self.trainer)
        # what comes before the first step would leave memory in pieces; see `KeptMemory`
        memory = memory_kept(device, keep=False) if subcommand == "fit" else nullcontext()
        with (
            float32_products(device, tf32=tf32),
            memory,
            startup_set_aside(),
            looks_remembered(),
            hooks.in_place(),
            self._own_folder() if subcommand == "fit" else nullcontext(),
        ):
            super()._run_subcommand(subcommand)

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Check what is resumed, and have the run folder, made if it is new, for this run alone."""
        self._check_fit()
        if not self._writes():
            yield
            return
        if self.start.is_new:
            self._set_folder(self.trainer, claim_version(self.start.folder))
        try:
            with going_on(self.start.folder):
                yield
        except Exception:
            if self.start.is_new and self.trainer.fit_loop.epoch_loop.total_batch_idx < 0:
                drop_version(self.start.folder)  # refused before its first batch
            raise

    def _writes(self) -> bool:
        """Whether this process is the one to write, and the run no trial."""
        trainer = self.trainer
        return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _backend(self) -> str | None:
        """What compiles the network, or `None`."""
        asked = self.config["fit"].compile if self.command == "fit" else None
        return ("inductor" if asked is True else asked) or None

    def dump_settings(self) -> str:
        """All settings of a training as YAML, with whole batches; replays the run."""
        parser = self._parser(self.command)
        config = _with_plain_texts(self._asked.clone())
        config["ckpt_path"] = None
        return to_yaml(yaml.safe_load(parser.dump(config, skip_unset=False)))

    def before_fit(self) -> None:
        """Say what runs where, and write the config."""
        folder = self.start.folder
        config = self.config[self.command]
        self._asked["run"] = folder.name
        resumed = "" if self.start.step is None else f", resumed at step {self.start.step}"
        say(f"run {folder.path}{resumed}")
        trainer = self.trainer
        how = describe(
            trainer,
            channels_last=self.model.channels_last,
            tf32=config.tf32,
            batch_size=self.datamodule.batch_size,
            keeps_memory=config.keep_memory and can_keep_memory(trainer.strategy.root_device),
            backend=self._backend(),
        )
        say(f"{how}, seed {config.seed_everything}")
        text = self.dump_settings()
        if self._writes():
            path = folder.next_config()
            if self.start.is_new:
                write_text(path, text)
            else:
                remove_parts(folder.path)  # of a process that was killed
                trainer.callbacks.append(callbacks.ResumedConfig(path, text))  # type: ignore[attr-defined]
        settings = yaml.safe_load(text)
        settings["trainer"] = {key: settings["trainer"][key] for key in _TRAINER_SETTINGS}
        for logger in trainer.loggers:
            if isinstance(logger, EventFiles):
                logger.log_settings({key: settings[key] for key in _SETTINGS})

    def before_validate(self) -> None:
        """Check that the checkpoint belongs to the model."""
        self._check_fit()

    before_test = before_validate
    before_predict = before_validate

    def after_validate(self) -> None:
        """Tell what was measured; Lightning would tell it of "DataLoader 0", to sixteen digits."""
        if self.config[self.command].verbose:
            for line in result_lines(self.trainer.callback_metrics):
                say(line)

    after_test = after_validate

    def _check_fit(self) -> None:
        checkpoint, path = self.start.checkpoint, self.start.checkpoint_path
        if checkpoint is not None and path is not None:
            self.start.check_fit(self.model)
            content = Content(checkpoint, path)
            content.check_kinds(self.model.state_dict())
            check_restorable(content, self.trainer)
            if self.command == "fit":
                check_resumable(content, self.model)
            self.start.drop_numbers()

    def after_fit(self) -> None:
        """Name the run folder, the best accuracy and the command to look at it."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.start.step == self.trainer.global_step:
            say(
                f"nothing was left to train after step {self.start.step}: "
                "a larger --trainer.max_epochs (or max_steps, max_time) goes on"
            )
        # the user may keep checkpoints by another metric besides
        kept = self.trainer.checkpoint_callbacks
        best = next((one for one in kept if isinstance(one, callbacks.BestCheckpoint)), None)
        score = None if best is None else best.best_model_score
        told = "" if score is None else f"  best val/accuracy {float(score):.4f}"
        look = ["tensorboard", "--logdir", str(self.start.folder.path.parent)]
        look += ["--samples_per_plugin", "images=100"]
        say(f"done: {self.start.folder.path}{told}  look: {shlex.join(look)}")

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        path = self.start.checkpoint_path
        kwargs["ckpt_path"] = None if path is None else str(path)
        kwargs["weights_only"] = True
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        elif subcommand != "fit":
            kwargs["verbose"] = False  # told by `after_validate`
        return kwargs


def _plain(spec: Any) -> Any:
    """A class and its arguments as a dictionary of plain values."""
    if isinstance(spec, Namespace):
        spec = vars(spec)
    if isinstance(spec, dict):
        # the parser notes here which file a value came from
        return {key: _plain(value) for key, value in spec.items() if key != "__path__"}
    return spec


def _with_plain_texts(settings: Any) -> Any:
    """Settings with plain texts for members of enums that are texts.

    Such is a default of Lightning's `Timer`, which the parser cannot write.
    """
    if isinstance(settings, Enum) and isinstance(settings, str):
        return str(settings.value)
    if isinstance(settings, list):
        return [_with_plain_texts(value) for value in settings]
    if isinstance(settings, Namespace):
        for key, value in vars(settings).items():
            setattr(settings, key, _with_plain_texts(value))
    return settings


def _show_help(command: str, argv: list[str]) -> int:
    try:
        with plain_errors(command):
            TrainingCLI(command, Start(command, argv, RunFolder(Path("logs/run/version_0"))))
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def silence() -> None:
    """Drop warnings that ask for what this project does on purpose."""
    # lightning 2.6 calls what jsonargparse deprecates: Lightning issue 21900
    warnings.filterwarnings("ignore", module="lightning.*", category=DeprecationWarning)
    # an evaluation needs none of the callbacks of the training that it evaluates
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")
    # short epochs are logged at their end
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than")
    # Lightning deprecates its own way of walking a batch at every first step
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    if os.environ.get("CNN_LIGHTNING_DEBUG") != "1":
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
