"""Batches that go through the network in parts, so that less of them is in memory at a time."""

from typing import Any

from jsonargparse import Namespace

from cnn_lightning.errors import UserError


def settle_micro_batches(trainer: Namespace, data: Namespace, most: int) -> None:
    """Take batches in equal parts, whose gradients are added up, so that its config says it.

    A step sees the images it saw before, batch norm those of a part. A batch of training that does
    not fall into equal parts of at least half of `most` stays whole.

    Args:
        trainer: Settings of the Trainer; `accumulate_grad_batches` is changed in place.
        data: The data module's class and arguments; both batch sizes are changed in place.
        most: Images that may go through the network at once, at least 2.

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
    parts = _count_parts(sizes.batch_size, most)
    sizes.batch_size //= parts
    trainer.accumulate_grad_batches *= parts
    sizes.eval_batch_size = min(sizes.eval_batch_size, most)


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
