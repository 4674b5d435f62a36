"""GoogLeNet, the first Inception network."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.choices import check_choice
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import ConvBlock, MaxPool2d, initialize_convolutions

Stem = Literal["small", "imagenet"]
# table 1 of the paper: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection
_BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
_POOLED_AFTER = {"inception3b": "maxpool3", "inception4e": "maxpool4"}
_TAPS = ("inception4a", "inception4d")  # where the auxiliary heads look


class GoogLeNet(Network):
    """GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842) with batch norm.

    As in torchvision, whose weights fit, the third branch has a 3×3 convolution where the paper
    has 5×5.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        stem: `imagenet` shrinks the image eightfold first, as the paper; `small` begins with one
            3×3 convolution that keeps the size.
        auxiliary: Whether to have the two auxiliary heads, which help in training alone.
    """

    num_features = 1024
    auxiliary_weight = 0.3  # section 5 of the paper

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        stem: Stem = "imagenet",
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        check_choice("stem", stem, Stem)
        self.min_size = 8 if stem == "small" else 15
        self.default_size = 32 if stem == "small" else 224
        self.backbone = _Backbone(in_channels, stem)
        # 0.2 and 0.7: torchvision's; the paper drops 0.4 and 0.7
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.num_features, num_classes))
        self.aux1 = _AuxiliaryHead(512, num_classes) if auxiliary else None
        self.aux2 = _AuxiliaryHead(528, num_classes) if auxiliary else None
        if not auxiliary:
            self.auxiliary_weight = 0.0
        initialize_convolutions(self)

    @override
    def auxiliary_logits(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.check_size(images)
        features, taps = cast(_Backbone, self.backbone).with_taps(images)
        heads = [head for head in (self.aux1, self.aux2) if head is not None]
        auxiliary = [head(tap) for head, tap in zip(heads, taps, strict=False)]
        return self.head(features), auxiliary

    @override
    def rename_torchvision_key(self, key: str) -> str:
        if key.startswith("fc."):
            return key.replace("fc.", "head.1.", 1)
        return key if key.startswith("aux") else f"backbone.{key}"


class _Backbone(nn.Module):
    def __init__(self, in_channels: int, stem: str) -> None:
        super().__init__()
        if stem == "imagenet":
            self.conv1 = ConvBlock(in_channels, 64, 7, stride=2, padding=3)
            self.maxpool1 = MaxPool2d(3, stride=2, ceil_mode=True)
            self.conv2 = ConvBlock(64, 64, 1)
            self.conv3 = ConvBlock(64, 192, 3, padding=1)
            self.maxpool2 = MaxPool2d(3, stride=2, ceil_mode=True)
        else:
            self.conv1 = ConvBlock(in_channels, 192, 3, padding=1)
        self.is_small = stem == "small"
        channels = 192
        for name, widths in _BLOCKS.items():
            self.add_module(name, _Inception(channels, *widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.maxpool3 = MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = MaxPool2d(2, stride=2, ceil_mode=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.with_taps(images)[0]

    def with_taps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features N×1024, and what the auxiliary heads see."""
        x = self.conv1(images)
        if not self.is_small:
            x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(x))))
        taps = []
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
            if name in _TAPS:
                taps.append(x)
            if name in _POOLED_AFTER:
                x = self.get_submodule(_POOLED_AFTER[name])(x)
        return self.avgpool(x).flatten(1), taps


class _Inception(nn.Module):
    """Four branches side by side, their channels stacked: figure 2 (b)."""

    def __init__(
        self, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.branch1 = ConvBlock(channels, one, 1)
        self.branch2 = nn.Sequential(
            ConvBlock(channels, reduce3, 1), ConvBlock(reduce3, three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            ConvBlock(channels, reduce5, 1), ConvBlock(reduce5, five, 3, padding=1)
        )
        self.branch4 = nn.Sequential(
            MaxPool2d(3, stride=1, padding=1, ceil_mode=True), ConvBlock(channels, pool, 1)
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class _AuxiliaryHead(nn.Module):
    """A classifier on a middle layer, whose gradient reaches the early ones: section 5."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvBlock(channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.fc1(self.conv(self.pool(x)).flatten(1)))
        result: Tensor = self.fc2(self.dropout(hidden))
        return result
