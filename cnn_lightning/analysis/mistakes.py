"""Which images were classified wrongly, and as what."""

import torch
from torch import Tensor


def confusion_counts(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Count images by true class (rows) and most probable class (columns).

    Args:
        probabilities: N×K float.
        labels: N int64 in 0..K-1.

    Returns:
        K×K int64.

    Example:
        >>> confusion_counts(torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([0, 1]))
        tensor([[1, 0],
                [1, 0]])
    """
    num_classes = probabilities.shape[1]
    cells = labels * num_classes + probabilities.argmax(1)
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def worst_mistakes(probabilities: Tensor, labels: Tensor, count: int) -> Tensor:
    """Find the images classified wrongly with the highest confidence.

    Args:
        probabilities: N×K float.
        labels: N int64 in 0..K-1.
        count: How many at most.

    Returns:
        Their rows, the most confident first, int64; equal ones in the order of the rows.
    """
    confidences, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[confidences[wrong].argsort(descending=True, stable=True)[:count]]
