"""Balanced sampling: every class as often as any other, as a function of seed and epoch."""

import torch
from torch import Tensor

from cnn_lightning.randomness import permutation


def balanced_counts(labels: Tensor, num_classes: int) -> Tensor:
    """How often each class is shown in an epoch of about as many images as there are.

    Args:
        labels: N int64 in 0..K-1.
        num_classes: K.

    Returns:
        K int64: N divided by the number of classes that there are images of, rounded up, and 0
        where there are none.

    Example:
        >>> balanced_counts(torch.tensor([0, 0, 0, 0, 0, 2]), num_classes=3)
        tensor([3, 0, 3])
    """
    is_there = torch.bincount(labels, minlength=num_classes) > 0
    quota = -(-len(labels) // max(int(is_there.sum()), 1))
    return is_there * quota


def balanced_order(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """The images of one epoch, each class as often as any other.

    A class is gone through in rounds, each in an order of its own, and the next epoch goes on where
    this one ends: no image of a class is seen a second time before all have been seen once.

    Args:
        labels: N int64.
        seed: Of the order.
        epoch: From 0.

    Returns:
        Places in `labels`, as many as `balanced_counts` has in all, int64 in random order.
    """
    counts = balanced_counts(labels, int(labels.max()) + 1)
    chosen = []
    for label, count in enumerate(counts.tolist()):
        if count == 0:
            continue
        members = (labels == label).nonzero().flatten()
        first, last = epoch * count, (epoch + 1) * count
        first_round, last_round = first // len(members), -(-last // len(members))
        rounds = [
            permutation(len(members), "balanced", seed, label, number)
            for number in range(first_round, last_round)
        ]
        start = first - first_round * len(members)
        chosen.append(members[torch.cat(rounds)[start : start + count]])
    places = torch.cat(chosen)
    return places[permutation(len(places), "order", seed, epoch)]
