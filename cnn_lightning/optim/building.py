"""Which parameters an optimizer is given, and in which groups."""

from typing import Any

from torch import Tensor, nn


def split_weight_decay(module: nn.Module) -> list[dict[str, Any]]:
    """Group the trainable parameters so that biases and batch norm are spared weight decay.

    "No bias decay" of He et al. 2018 (arXiv:1812.01187, 3.1): kernels and matrices, which are what
    has two dimensions or more, decay; vectors do not (see `count_dimensions`).

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
        {"params": [one for one in trainable if count_dimensions(one) >= 2]},
        {"params": [one for one in trainable if count_dimensions(one) < 2], "weight_decay": 0},
    ]
    return [group for group in groups if group["params"]]


def count_dimensions(parameter: Tensor) -> int:
    """Dimensions of a parameter, without those that make it look like a kernel and are none.

    The scales of layers of ConvNeXt, C×1×1, are vectors, and the positions of a vision transformer,
    1×N×C, are a matrix.

    Example:
        >>> import torch
        >>> shapes = [(8, 1, 1), (1, 5, 8), (8, 1, 3, 3), (1, 8)]
        >>> [count_dimensions(torch.ones(shape)) for shape in shapes]
        [1, 2, 4, 2]
    """
    if parameter.ndim > 2 and parameter.numel() == max(parameter.shape):
        return 1
    return 2 if parameter.ndim == 3 and len(parameter) == 1 else parameter.ndim
