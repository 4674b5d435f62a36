"""What the Trainer of each command is given besides what the user asks for."""

import sys
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.loggers import Logger

from cnn_lightning import callbacks, slurm
from cnn_lightning.checkpoint_io import AtomicCheckpointIO
from cnn_lightning.loggers import EventFiles, MetricsTable
from cnn_lightning.runs import RunFolder


def choose_callbacks(
    command: str, settings: Namespace, folder: RunFolder, backend: str | None
) -> list[Callback]:
    """The callbacks: the user's, then those of the command.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        settings: All settings of the command.
        folder: Where files go.
        backend: What compiles the network; `None` if nothing does.
    """
    trainer = settings.trainer
    chosen: list[Callback] = as_list(trainer.get("callbacks"))
    own_bar = any(isinstance(callback, ProgressBar) for callback in chosen)
    if trainer.enable_progress_bar in (None, True) and not own_bar:
        chosen.append(callbacks.Bar() if sys.stdout.isatty() else callbacks.EpochLines())
    if command == "fit":
        if trainer.enable_checkpointing is not False:
            chosen.append(callbacks.BestCheckpoint(folder))
        chosen += [callbacks.Throughput(), callbacks.PredictionGrid(folder)]
        own_summary = any(isinstance(callback, ModelSummary) for callback in chosen)
        if trainer.enable_model_summary is not False and not own_summary:
            chosen.append(callbacks.NetworkSummary())
        if backend is not None:
            chosen.append(callbacks.Compilation(backend))
        if trainer.gradient_clip_val is not None:
            chosen.append(callbacks.GradientNorm())
    elif command == "test":
        chosen.append(callbacks.EvaluationFigures(folder))
    elif command == "predict":
        chosen.append(callbacks.PredictionFiles(folder, settings.top_k))
    return chosen


def choose_plugins(given: Any) -> list[Any]:
    """The plugins: the user's, and those that write checkpoints whole and know the cluster."""
    plugins = [*as_list(given), AtomicCheckpointIO()]
    if slurm.is_job() and not any(isinstance(one, ClusterEnvironment) for one in plugins):
        # Lightning would write a checkpoint of another name, and go on until it is killed
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


def choose_loggers(
    command: str, given: Any, folder: RunFolder, step: int | None
) -> list[Logger] | None:
    """The loggers: those of the run folder, then the user's; `None` to leave the choice as it is.

    Args:
        command: `fit`, `validate`, `test` or `predict`; the last logs nothing.
        given: What the user says of loggers, built.
        folder: Where files go.
        step: That of the checkpoint a command begins with, if there is one.
    """
    if given not in (None, True) and not isinstance(given, (Logger, list)):
        return None
    own: list[Logger] = []
    if command != "predict":
        where: dict[str, Any] = {"resumed_at": step} if command == "fit" else {"at_step": step or 0}
        own = [EventFiles(folder, **where), MetricsTable(folder, **where)]
    return [*own, *as_list(given)]


def as_list(value: Any) -> list[Any]:
    """What a setting that takes one or several holds; nothing if it is a switch, or left out."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list) else [value]
