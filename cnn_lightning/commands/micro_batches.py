"""Batches that go through the network in parts, so that less of them is in memory at a time."""

from jsonargparse import Namespace


def settle_micro_batches(trainer: Namespace, data: Namespace, most: int) -> None:
    """Take batches in equal parts, whose gradients are added up, so that its config says it.

    A step sees the images it saw before, batch norm those of a part. A batch of training that does
    not fall into equal parts of at least half of `most` stays whole.

    Args:
        trainer: Settings of the Trainer; `accumulate_grad_batches` is changed in place.
        data: Arguments of the data module; both batch sizes are changed in place.
        most: Images that may go through the network at once, at least 2.
    """
    parts = _count_parts(data.batch_size, most)
    data.batch_size //= parts
    trainer.accumulate_grad_batches *= parts
    data.eval_batch_size = min(data.eval_batch_size, most)


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
