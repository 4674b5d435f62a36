"""LeNet-5 as a classifier."""

from typing import Any, Literal

from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.networks import LeNet5


class LeNet(ImageClassifier):
    """LeNet-5 (LeCun et al. 1998, figure 2); takes images of 28 to 32 pixels.

    Args:
        num_classes: Classes to tell apart, at least 2.
        in_channels: Colour channels of an image.
        activation: Function after every layer but the last.
        pooling: How each 2×2 field is reduced to one value.
        batch_norm: Normalise before every activation.
        dropout: Share 0..1 of the features dropped after each fully connected layer but the last.
        **kwargs: As for `ImageClassifier`.

    Example:
        >>> import torch
        >>> LeNet(num_classes=10, in_channels=1, activation="relu")(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        activation: Literal["tanh", "relu", "sigmoid", "gelu"] = "tanh",
        pooling: Literal["avg", "max"] = "avg",
        batch_norm: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        network = LeNet5(
            num_classes,
            in_channels,
            activation=activation,
            pooling=pooling,
            batch_norm=batch_norm,
            dropout=dropout,
        )
        super().__init__(network, **kwargs)
