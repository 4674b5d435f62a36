"""Residual networks as classifiers."""

from typing import Any, Literal

from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.networks import ResidualNetwork


class ResNet(ImageClassifier):
    """A residual network (He et al. 2016, arXiv:1512.03385).

    Args:
        num_classes: Classes to tell apart, at least 2.
        in_channels: Colour channels of an image.
        depth: Layers with weights.
        stem: `small` for images of about 32 pixels, `imagenet` for 224 and pretrained weights,
            `whitened` for about 32 pixels with a first layer set by the training images.
        **kwargs: As for `ImageClassifier`.

    Example:
        >>> import torch
        >>> ResNet(num_classes=10, depth=18).eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 18,
        stem: Literal["small", "imagenet", "whitened"] = "small",
        **kwargs: Any,
    ) -> None:
        self.torchvision_name = f"resnet{depth}"
        super().__init__(
            ResidualNetwork(num_classes, in_channels, depth=depth, stem=stem), **kwargs
        )
