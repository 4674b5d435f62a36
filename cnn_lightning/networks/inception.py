"""Inception v3."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import ConvBlock, initialize_convolutions


class InceptionV3(Network):
    """Inception v3 (Szegedy et al. 2016, arXiv:1512.00567), by torchvision's names and widths.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        auxiliary: Whether to have the auxiliary head, which helps in training alone.
    """

    min_size = 75
    default_size = 299
    num_features = 2048
    auxiliary_weight = 0.4  # the published training code's; the paper gives none

    def __init__(self, num_classes: int, in_channels: int = 3, *, auxiliary: bool = True) -> None:
        super().__init__()
        self.backbone = _Backbone(in_channels)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(self.num_features, num_classes))
        self.AuxLogits = _AuxiliaryHead(num_classes) if auxiliary else None
        if not auxiliary:
            self.auxiliary_weight = 0.0
        initialize_convolutions(self)

    @override
    def auxiliary_logits(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.check_size(images)
        features, tap = cast(_Backbone, self.backbone).with_tap(images)
        auxiliary = [] if self.AuxLogits is None else [self.AuxLogits(tap)]
        return self.head(features), auxiliary

    @override
    def rename_torchvision_key(self, key: str) -> str:
        if key.startswith("fc."):
            return key.replace("fc.", "head.1.", 1)
        return key if key.startswith("AuxLogits.") else f"backbone.{key}"


class _Backbone(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        # sizes for an image of 299×299
        self.Conv2d_1a_3x3 = ConvBlock(in_channels, 32, 3, stride=2)  # 149
        self.Conv2d_2a_3x3 = ConvBlock(32, 32, 3)  # 147
        self.Conv2d_2b_3x3 = ConvBlock(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)  # 73
        self.Conv2d_3b_1x1 = ConvBlock(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBlock(80, 192, 3)  # 71
        self.maxpool2 = nn.MaxPool2d(3, stride=2)  # 35
        self.Mixed_5b = _Block5(192, 32)
        self.Mixed_5c = _Block5(256, 64)
        self.Mixed_5d = _Block5(288, 64)
        self.Mixed_6a = _Shrink6(288)  # 17
        self.Mixed_6b = _Block6(768, 128)
        self.Mixed_6c = _Block6(768, 160)
        self.Mixed_6d = _Block6(768, 160)
        self.Mixed_6e = _Block6(768, 192)
        self.Mixed_7a = _Shrink7(768)  # 8
        self.Mixed_7b = _Block7(1280)
        self.Mixed_7c = _Block7(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.with_tap(images)[0]

    def with_tap(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features N×2048, and what the auxiliary head sees."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        tap = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(tap)))
        return self.avgpool(x).flatten(1), tap


class _Block5(nn.Module):
    """Figure 5: each 5×5 also as two 3×3."""

    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBlock(channels, 64, 1)
        self.branch5x5_1 = ConvBlock(channels, 48, 1)
        self.branch5x5_2 = ConvBlock(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvBlock(channels, 64, 1)
        self.branch3x3dbl_2 = ConvBlock(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBlock(96, 96, 3, padding=1)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvBlock(channels, pool, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(self.pool(x))], 1)


class _Shrink6(nn.Module):
    """Figure 10: halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvBlock(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBlock(channels, 64, 1)
        self.branch3x3dbl_2 = ConvBlock(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBlock(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, self.pool(x)], 1)


class _Block6(nn.Module):
    """Figure 6: 7×7 as 1×7 and 7×1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        wide = {"kernel_size": (1, 7), "padding": (0, 3)}
        high = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = ConvBlock(channels, 192, 1)
        self.branch7x7_1 = ConvBlock(channels, width, 1)
        self.branch7x7_2 = ConvBlock(width, width, **wide)
        self.branch7x7_3 = ConvBlock(width, 192, **high)
        self.branch7x7dbl_1 = ConvBlock(channels, width, 1)
        self.branch7x7dbl_2 = ConvBlock(width, width, **high)
        self.branch7x7dbl_3 = ConvBlock(width, width, **wide)
        self.branch7x7dbl_4 = ConvBlock(width, width, **high)
        self.branch7x7dbl_5 = ConvBlock(width, 192, **wide)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvBlock(channels, 192, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(self.pool(x))], 1)


class _Shrink7(nn.Module):
    """As figure 10, once more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBlock(channels, 192, 1)
        self.branch3x3_2 = ConvBlock(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBlock(channels, 192, 1)
        self.branch7x7x3_2 = ConvBlock(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvBlock(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvBlock(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, self.pool(x)], 1)


class _Block7(nn.Module):
    """Figure 7: 1×3 and 3×1 side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBlock(channels, 320, 1)
        self.branch3x3_1 = ConvBlock(channels, 384, 1)
        self.branch3x3_2a = ConvBlock(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvBlock(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvBlock(channels, 448, 1)
        self.branch3x3dbl_2 = ConvBlock(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvBlock(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvBlock(384, 384, (3, 1), padding=(1, 0))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvBlock(channels, 192, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


class _AuxiliaryHead(nn.Module):
    """A classifier on the last 17×17 layer: section 4."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvBlock(768, 128, 1)
        self.conv1 = ConvBlock(128, 768, 5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, num_classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        # 17×17 to the 5×5 that conv1 needs; images of fewer than 299 pixels leave less to pool
        is_full = min(x.shape[-2:]) >= 17
        x = F.avg_pool2d(x, 5, stride=3) if is_full else F.adaptive_avg_pool2d(x, 5)
        result: Tensor = self.fc(self.avgpool(self.conv1(self.conv0(x))).flatten(1))
        return result
