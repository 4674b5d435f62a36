"""Which parameters an optimizer is given, and in which groups."""

from typing import Any

from torch import nn


def split_weight_decay(module: nn.Module) -> list[dict[str, Any]]:
    """Group the trainable parameters so that biases and batch norm are spared weight decay.

    "No bias decay" of He et al. 2018 (arXiv:1812.01187, 3.1): kernels and matrices, which are what
    has two dimensions or more, decay; vectors do not.

    Args:
        module: Parameters that need no gradient are left out.

    Returns:
        Up to two groups for a torch optimizer, each in the order of `module.parameters()`: those
        that decay as the optimizer says, then those with `weight_decay` 0. No group is empty.

    Example:
        >>> [len(group["params"]) for group in split_weight_decay(nn.Linear(2, 3))]
        [1, 1]
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2]},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0},
    ]
    return [group for group in groups if group["params"]]
