"""What an evaluation found, to be read."""

from collections.abc import Mapping

from torch import Tensor


def result_lines(metrics: Mapping[str, Tensor | float]) -> list[str]:
    """A line for each metric, names and numbers in columns.

    Args:
        metrics: Scalars by name, in the order they are told.

    Example:
        >>> result_lines({"val/accuracy": 0.885, "val/loss": 0.41547})
        ['val/accuracy  0.8850', 'val/loss      0.4155']
    """
    width = max(map(len, metrics), default=0)
    return [f"{name:<{width}}  {float(value):.4f}" for name, value in metrics.items()]
