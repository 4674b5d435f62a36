"""The network of airbench, made to learn CIFAR-10 in seconds."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.errors import UserError
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import PatchWhitening

# quick to follow the last few batches, since there are few: 3.1 of the paper, where it is 1 - 0.6
_BATCH_NORM_MOMENTUM = 0.4


class AirbenchNetwork(Network):
    """Whitened patches, then blocks of two 3×3 convolutions (Jordan 2024, arXiv:2404.00498).

    Each block halves height and width after its first convolution; the greatest value of each
    channel goes to the head. Convolutions begin as the identity on the channels that come in
    (3.3 of the paper). Unlike the paper's, the scales of batch norm are trained, and the pooling at
    the end takes the whole map, so that images of any size can be learnt from.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        widths: Channels of each block, 64, 256 and 256 in the paper (1,972,504 parameters for
            three channels and ten classes).

    Raises:
        UserError: A width is below 1, or there is none.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, *, widths: Sequence[int] = (64, 256, 256)
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise UserError(f"widths {list(widths)}", "give a number of channels for each block")
        self.default_size = 32
        self.min_size = 2 ** len(widths) + 1  # the whitening takes one pixel, each block halves
        self.backbone = _Backbone(in_channels, widths)
        self.num_features = widths[-1]
        self.head = nn.Linear(self.num_features, num_classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / self.num_features)


class _Backbone(nn.Module):
    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.whiten = PatchWhitening(in_channels, kernel_size=2)
        self.activation = nn.GELU()
        channels = [self.whiten.out_channels, *widths]
        self.blocks = nn.Sequential(
            *(_Block(before, after) for before, after in zip(channels, widths, strict=False))
        )

    @override
    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.blocks(self.activation(self.whiten(images)))
        # not amax, whose gradient looks for values equal to the greatest: compiled, these are
        # computed again in another precision, and where none is equal the gradient is NaN
        return F.max_pool2d(x, x.shape[2:]).flatten(1)


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _identity_convolution(in_channels, channels)
        self.pool = nn.MaxPool2d(2)
        self.bn1 = nn.BatchNorm2d(channels, momentum=_BATCH_NORM_MOMENTUM)
        self.activation1 = nn.GELU()
        self.conv2 = _identity_convolution(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels, momentum=_BATCH_NORM_MOMENTUM)
        self.activation2 = nn.GELU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.activation1(self.bn1(self.pool(self.conv1(x))))
        result: Tensor = self.activation2(self.bn2(self.conv2(x)))
        return result


def _identity_convolution(in_channels: int, channels: int) -> nn.Conv2d:
    """A 3×3 convolution whose first outputs are its inputs, the others drawn as torch does."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:in_channels])
    return convolution
