"""Weights of classes in the training loss, for data in which some are rare."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cnn_lightning.errors import UserError

ClassWeights = Literal["balanced"] | list[float]


def initial_weights(asked: ClassWeights | None, num_classes: int) -> Tensor | None:
    """The weights that stand before any data is seen, K float32; `None` for no weights.

    Raises:
        UserError: They are not one number above 0 for each class.
    """
    if asked is None:
        return None
    if asked == "balanced":
        return torch.ones(num_classes)
    if len(asked) != num_classes or not all(0 < one < math.inf for one in asked):
        raise UserError(
            f"class_weights are {list(asked)[:8]} for {num_classes} classes",
            "give one number above 0 for each class, in their order, or `balanced`",
        )
    return torch.tensor(asked, dtype=torch.float32)


def balanced_weights(counts: Tensor, class_names: Sequence[str]) -> Tensor:
    """Weights under which every class counts as much as any other.

    N / (K · n), n being the images of the class: King and Zeng 2001 (Logistic Regression in Rare
    Events Data), as scikit-learn's `class_weight="balanced"`. Over all images their mean is 1.

    Args:
        counts: Training images of each class, K int64.
        class_names: K names.

    Returns:
        K float32.

    Raises:
        UserError: A class has no images.

    Example:
        >>> balanced_weights(torch.tensor([30, 10]), ["cat", "dog"])
        tensor([0.6667, 2.0000])
    """
    if bool((counts == 0).any()):
        name = class_names[int((counts == 0).nonzero()[0])]
        raise UserError(
            f"class {name} has no training images to weigh", "add some, or give weights as numbers"
        )
    return (counts.sum() / (len(counts) * counts.double())).float()


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, *, label_smoothing: float = 0.0
) -> Tensor:
    """Cross entropy, each image's times the weight of its class, over the number of images.

    Not over the sum of their weights, as torch's mean is: so a batch of rare classes counts more
    than others, and parts of a batch on several processes, or of accumulated gradients, add up.
    What smoothing spreads over all classes weighs what the image weighs; torch's `weight` would
    make each class's share weigh what that class does, which teaches the rare ones for the others.

    Args:
        logits: N×K.
        labels: N int64, or N×K float whose rows sum to 1.
        weights: K float32, or `None` for all 1.
        label_smoothing: See `training_loss`.
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, labels, weight=weights, reduction="sum")
    if label_smoothing > 0:
        # neither a product of matrices nor bfloat16's logarithms: mixed precision rounds both
        of_images = weights[labels] if labels.ndim == 1 else (labels * weights).sum(1)
        wide = torch.promote_types(logits.dtype, torch.float32)
        spread = -(of_images * F.log_softmax(logits, 1, dtype=wide).mean(1)).sum()
        total = (1 - label_smoothing) * total + label_smoothing * spread
    return total / len(labels)
