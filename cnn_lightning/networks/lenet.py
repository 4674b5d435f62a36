"""LeNet-5."""

from collections import OrderedDict
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.choices import check_choice
from cnn_lightning.networks.base import Network

Activation = Literal["tanh", "relu", "sigmoid", "gelu"]
Pooling = Literal["avg", "max"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}
_POOLINGS: dict[str, type[nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class LeNet5(Network):
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition").

    The layers of its figure 2, with full connections in the second convolution, a plain pooling
    in place of the trainable one, and a linear head. An image of fewer than 32×32 pixels stands in
    the middle of a field of 32×32, as the paper's 28×28 digits do. 61,706 parameters for one colour
    channel and ten classes.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        activation: Function after every layer but the last.
        pooling: How each 2×2 field is reduced to one value.
        batch_norm: Normalise before every activation (Ioffe and Szegedy 2015, arXiv:1502.03167).
        dropout: Share 0..1 of the features dropped after each fully connected layer but the last
            (Srivastava et al. 2014).
    """

    min_size = 28
    max_size = 32
    default_size = 32
    num_features = 84

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        activation: Activation = "tanh",
        pooling: Pooling = "avg",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("activation", activation, Activation)
        check_choice("pooling", pooling, Pooling)
        act, pool = _ACTIVATIONS[activation], _POOLINGS[pooling]
        layers: dict[str, nn.Module | None] = {
            "field": _CentreIn32(),
            "conv1": nn.Conv2d(in_channels, 6, 5),  # N×6×28×28
            "bn1": nn.BatchNorm2d(6) if batch_norm else None,
            "act1": act(),
            "pool1": pool(2),
            "conv2": nn.Conv2d(6, 16, 5),  # N×16×10×10
            "bn2": nn.BatchNorm2d(16) if batch_norm else None,
            "act2": act(),
            "pool2": pool(2),
            "flatten": nn.Flatten(),
            "fc3": nn.Linear(16 * 5 * 5, 120),
            "bn3": nn.BatchNorm1d(120) if batch_norm else None,
            "act3": act(),
            "drop3": nn.Dropout(dropout) if dropout else None,
            "fc4": nn.Linear(120, 84),
            "bn4": nn.BatchNorm1d(84) if batch_norm else None,
            "act4": act(),
            "drop4": nn.Dropout(dropout) if dropout else None,
        }
        self.backbone = nn.Sequential(
            OrderedDict((name, layer) for name, layer in layers.items() if layer is not None)
        )
        self.head = nn.Linear(self.num_features, num_classes)


class _CentreIn32(nn.Module):
    """Zeros around an image, so that it is 32×32."""

    @override
    def forward(self, images: Tensor) -> Tensor:
        missing = [32 - side for side in reversed(images.shape[-2:]) for _ in range(2)]
        sides = [(gap + odd) // 2 for odd, gap in zip((0, 1, 0, 1), missing, strict=True)]
        return F.pad(images, sides) if any(sides) else images
