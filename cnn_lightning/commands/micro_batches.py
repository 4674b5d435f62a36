"""Batches that go through the network in parts, so that less of them is in memory at a time."""

import shlex
from typing import Any

import yaml
from jsonargparse import Namespace

from cnn_lightning.commands.arguments import Start
from cnn_lightning.commands.arithmetic import is_bfloat16, is_on_cpu
from cnn_lightning.errors import UserError


def settle_batches(config: Namespace, start: Start) -> None:
    """Take batches in the parts that `cpu_micro_batch` asks for, those of a resumed run as before.

    Args:
        config: All settings of a training, with whole batches; changed in place.
        start: What the command asks for.

    Raises:
        UserError: The run began with another `cpu_micro_batch`, or its data cannot be taken so.
    """
    most = config.cpu_micro_batch
    is_known = "trainer" in start.known  # of a checkpoint by itself, only model and data are
    if is_known:
        _refuse_other_parts(most, start.known.get("cpu_micro_batch"))
    if most is None:
        return
    if not isinstance(most, int):
        most = most["bfloat16" if is_bfloat16(config.trainer) else "float32"]
    parts = _parts_before(config.data, start) if is_known else None
    if is_on_cpu(config.trainer) or (parts or 1) > 1:
        settle_micro_batches(config.trainer, config.data, most, parts)


def settle_micro_batches(
    trainer: Namespace, data: Namespace, most: int, parts: int | None = None
) -> None:
    """Take batches in equal parts, whose gradients are added up.

    A step sees the images it saw before, batch norm those of a part. A batch of training that does
    not fall into equal parts of at least half of `most` stays whole.

    Args:
        trainer: Settings of the Trainer; `accumulate_grad_batches` is changed in place.
        data: The data module's class and arguments; both batch sizes are changed in place.
        most: Images that may go through the network at once, at least 2.
        parts: Of a batch of training, which `most` has no say in then.

    Raises:
        UserError: The data module, a user's own, lets no one choose its batch sizes.
    """
    sizes: Any = data.get("init_args") or ()
    if "batch_size" not in sizes or "eval_batch_size" not in sizes:
        raise UserError(
            f"cpu_micro_batch is {most}, and {data.class_path} takes no batch_size and"
            " eval_batch_size",
            "use --cpu_micro_batch null, or let it take them, as by **kwargs",
        )
    parts = parts or _count_parts(sizes.batch_size, most)
    sizes.batch_size //= parts
    trainer.accumulate_grad_batches *= parts
    sizes.eval_batch_size = min(sizes.eval_batch_size, most)


def _parts_before(data: Namespace, start: Start) -> int | None:
    """In how many parts a batch went when the checkpoint was written; `None` if it is another."""
    assert start.checkpoint is not None  # noqa: S101  # the caller's: something is known of it
    before = (start.known["data"].get("init_args") or {}).get("batch_size")
    part = start.checkpoint.get("datamodule_hyper_parameters", {}).get("batch_size")
    now: Any = (data.get("init_args") or {}).get("batch_size")
    if part is None or now != before or now % part:
        return None
    return int(now // part)


def _refuse_other_parts(asked: Any, before: Any) -> None:
    if asked != before:
        asked, before = (
            yaml.safe_dump(one, default_flow_style=True).split("\n")[0] for one in (asked, before)
        )
        raise UserError(
            f"cpu_micro_batch is {asked}, and the run began with {before}, which it keeps",
            f"use --cpu_micro_batch {shlex.quote(before)}; --data.batch_size and"
            " --trainer.accumulate_grad_batches may change",
        )


def _count_parts(batch_size: int, most: int) -> int:
    """Fewest equal parts of at most `most` images; 1 if those would be smaller than half of it.

    Example:
        >>> [_count_parts(batch_size, 32) for batch_size in (128, 100, 20, 127)]
        [4, 4, 1, 1]
    """
    least = -(-batch_size // most)
    for parts in range(least, 2 * batch_size // most + 1):
        if batch_size % parts == 0:
            return parts
    return 1
