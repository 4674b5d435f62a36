"""Optimizer and schedule by class and arguments, as plain values that a checkpoint can hold."""

import inspect
import math
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cnn_lightning import optim
from cnn_lightning.checkpoint_content import CHECKPOINT_KEY
from cnn_lightning.errors import UserError
from cnn_lightning.imports import import_class
from cnn_lightning.optim import split_weight_decay

ClassSpec = dict[str, Any]
"""`{"class_path": ..., "init_args": {...}}`: the form of a class in a config file."""

# Nesterov momentum and decay as in He et al. 2016 (arXiv:1512.03385, 4.2); the rate is a middle one
DEFAULT_OPTIMIZER: ClassSpec = {
    "class_path": "torch.optim.SGD",
    "init_args": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
}
DEFAULT_SCHEDULE: ClassSpec = {"class_path": "cnn_lightning.optim.WarmupCosine", "init_args": {}}

# what torch's and our schedules call the length of the run
LENGTH_ARGUMENTS = {"total_steps", "T_max", "total_iters"}

_Class = TypeVar("_Class")


def stored_optimization(checkpoint: dict[str, Any]) -> tuple[ClassSpec, ClassSpec, str]:
    """Optimizer, schedule, and what that counts (`step`, `epoch`), of a checkpoint."""
    # a class may give them to the one below by itself: then they are not among its arguments
    stored = checkpoint.get(CHECKPOINT_KEY, {}).get("optimization")
    if stored is None:  # an older one
        stored = checkpoint.get("hyper_parameters", {})
    return (
        stored.get("optimizer") or DEFAULT_OPTIMIZER,
        stored.get("schedule") or DEFAULT_SCHEDULE,
        stored.get("schedule_interval", "step"),
    )


def build_optimizer(spec: ClassSpec, module: nn.Module) -> Optimizer:
    """Build an optimizer over the trainable parameters; weight decay spares biases and norms.

    Raises:
        UserError: The class is no optimizer, or does not take the arguments.
    """
    kind = find_class(spec["class_path"], Optimizer, [optim, torch.optim])
    return _build(kind, spec, split_weight_decay(module), {})


def rates_of_groups(spec: ClassSpec, module: nn.Module, lr: float) -> list[float]:
    """The rate of each group of parameters, where `lr` is what an optimizer is given.

    Not all groups need follow it: `MuonAdamW` has `adam_lr` besides.

    Raises:
        UserError: As `build_optimizer`.
    """
    arguments = {**spec.get("init_args", {}), "lr": lr}
    optimizer = build_optimizer({**spec, "init_args": arguments}, module)
    return [group["lr"] for group in optimizer.param_groups]


def run_length(trainer: Trainer, *, by_step: bool) -> int | None:
    """Optimizer steps that a training has in all, at least 1, or epochs, the last perhaps cut off.

    Returns:
        `None` if neither steps nor epochs are limited.
    """
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        return None
    steps = max(1, int(steps))
    if by_step:
        return steps
    if trainer.train_dataloader is None:  # Lightning does not look at it where steps are the limit
        trainer.fit_loop.setup_data()
    steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return math.ceil(steps / max(1, steps_per_epoch))


def build_schedule(spec: ClassSpec, optimizer: Optimizer, length: int | None) -> LRScheduler:
    """Build a learning-rate schedule; one that asks for the run's length is told it.

    Args:
        spec: Class and arguments.
        optimizer: What it schedules.
        length: Steps, or epochs, that the run has in all; `None` if nobody knows.

    Raises:
        UserError: The class is no schedule, does not take the arguments, or asks for a length that
            nobody knows.
    """
    kind = find_class(spec["class_path"], LRScheduler, [optim, torch.optim.lr_scheduler])
    if issubclass(kind, ReduceLROnPlateau):
        raise UserError("ReduceLROnPlateau waits for a metric", "use a schedule of steps or epochs")
    parameters = inspect.signature(kind).parameters
    given = spec.get("init_args", {})
    known = {
        name: length
        for name in LENGTH_ARGUMENTS
        # OneCycleLR also takes epochs and steps_per_epoch, in place of total_steps
        if name in parameters and given.get(name) is None and given.get("epochs") is None
    }
    if known and length is None:
        raise UserError(
            f"the schedule {kind.__name__} needs the run's length, and nothing limits its epochs "
            "or steps",
            "add --trainer.max_epochs or --trainer.max_steps",
        )
    return _build(kind, spec, optimizer, known)


def keep_new_arguments(
    checkpoint: dict[str, Any], before: ClassSpec, now: ClassSpec, module: nn.Module
) -> None:
    """Let what is asked for now win over what a checkpoint's optimizer was made with.

    Torch's `load_state_dict` would bring the old learning rate back, and the schedule's old base.

    Args:
        checkpoint: Changed in place.
        before: The optimizer that the checkpoint was made with.
        now: The optimizer that is asked for.
        module: What both are of.

    Raises:
        UserError: They are of different classes, whose states do not fit each other.
    """
    if "optimizer_states" not in checkpoint or before == now:
        return
    names = [spec["class_path"].rpartition(".")[2] for spec in (before, now)]
    if names[0] != names[1]:
        raise UserError(
            f"the checkpoint holds the state of {names[0]}, the config asks for {names[1]}",
            "keep the optimizer, or start a new run with the checkpoint as `weights`",
        )
    old, new = (build_optimizer(spec, module).param_groups for spec in (before, now))
    for number, (was, wanted) in enumerate(zip(old, new, strict=True)):
        changed = {key for key in wanted if key != "params" and wanted[key] != was[key]}
        for state in checkpoint["optimizer_states"]:
            group = state["param_groups"][number]
            for key in changed - {"lr"}:
                group[key] = wanted[key]
            if "lr" in changed:
                group["lr"] *= wanted["lr"] / group.get("initial_lr", group["lr"])
                group["initial_lr"] = wanted["lr"]
        if "lr" in changed:
            for state in checkpoint["lr_schedulers"]:
                if "base_lrs" in state:
                    state["base_lrs"][number] = wanted["lr"]


def find_class(class_path: str, base: type[_Class], modules: list[Any]) -> type[_Class]:
    """The class of a name in one of the modules, or of a full import path.

    Raises:
        UserError: There is no such class or subclass of `base`, or its module is not allowed.
    """
    found = next((getattr(m, class_path) for m in modules if hasattr(m, class_path)), None)
    if isinstance(found, type) and issubclass(found, base):
        return found
    return import_class(class_path, base)


def _build(kind: type[_Class], spec: ClassSpec, first: Any, known: dict[str, Any]) -> _Class:
    arguments = {**spec.get("init_args", {}), **known}
    try:
        return kind(first, **arguments)  # type: ignore[call-arg]  # each class has its own
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{kind.__name__} refused {arguments}: {error}", "correct its init_args"
        ) from error
