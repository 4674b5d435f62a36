"""VGG-16 with batch norm as a classifier."""

from typing import Any, Literal

from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.networks import VGG


class VGG16(ImageClassifier):
    """VGG-16 (Simonyan and Zisserman 2015, arXiv:1409.1556, table 1 D) with batch norm.

    Args:
        num_classes: Classes to tell apart, at least 2.
        in_channels: Colour channels of an image.
        stem: `small` for images of about 32 pixels, `imagenet` for 224 and pretrained weights.
        **kwargs: As for `ImageClassifier`.

    Example:
        >>> import torch
        >>> VGG16(num_classes=10).eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    torchvision_name = "vgg16_bn"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        stem: Literal["small", "imagenet"] = "small",
        **kwargs: Any,
    ) -> None:
        super().__init__(VGG(num_classes, in_channels, stem=stem), **kwargs)
