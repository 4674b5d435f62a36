"""The network of airbench as a classifier."""

from collections.abc import Sequence
from typing import Any

from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.networks import AirbenchNetwork


class Airbench(ImageClassifier):
    """The network that learns CIFAR-10 in seconds (Jordan 2024, arXiv:2404.00498).

    Its first layer whitens patches of the training images, and is set before the first step.

    Args:
        num_classes: Classes to tell apart, at least 2.
        in_channels: Colour channels of an image.
        widths: Channels of each block of two convolutions; the last is what the head sees.
        **kwargs: As for `ImageClassifier`.

    Example:
        >>> import torch
        >>> Airbench(num_classes=10, widths=[8, 16])(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        widths: Sequence[int] = (64, 256, 256),
        **kwargs: Any,
    ) -> None:
        super().__init__(AirbenchNetwork(num_classes, in_channels, widths=widths), **kwargs)
