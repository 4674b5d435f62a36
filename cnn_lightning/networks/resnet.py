"""Residual networks."""

from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.choices import check_choice
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import PatchWhitening, initialize_convolutions

Stem = Literal["small", "imagenet", "whitened"]
Depth = Literal[18, 34, 50, 101, 152]
# blocks of each of the four stages, and whether they are bottlenecks: table 1 of the paper
_STAGES: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
_WIDTHS = (64, 128, 256, 512)


class ResidualNetwork(Network):
    """A residual network (He et al. 2016, arXiv:1512.03385).

    In bottlenecks the 3×3 convolution has the stride, not the first 1×1 ("V1.5", as torchvision).

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        depth: Layers with weights.
        stem: `small` begins with a 3×3 convolution that keeps the size (11,173,962 parameters at
            depth 18 for three channels and ten classes); `imagenet` with the paper's 7×7 and
            pooling, which quarter it; `whitened` with `PatchWhitening` of 3×3 patches, not trained.
    """

    min_size = 8

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        depth: Depth = 18,
        stem: Stem = "small",
    ) -> None:
        super().__init__()
        check_choice("depth", depth, Depth)
        check_choice("stem", stem, Stem)
        self.min_size = 32 if stem == "imagenet" else 8
        self.default_size = 224 if stem == "imagenet" else 32
        self.backbone = _Backbone(in_channels, depth, stem)
        self.num_features = self.backbone.num_features
        self.head = nn.Linear(self.num_features, num_classes)
        initialize_convolutions(self)


class _Backbone(nn.Module):
    def __init__(self, in_channels: int, depth: int, stem: Stem) -> None:
        super().__init__()
        blocks, is_bottleneck = _STAGES[depth]
        kind = _Bottleneck if is_bottleneck else _BasicBlock
        if stem == "whitened":
            self.conv1: nn.Conv2d = PatchWhitening(in_channels, 3, padding=1)
        elif stem == "small":
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        pool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        channels = self.conv1.out_channels
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.maxpool = pool
        for number, (count, width) in enumerate(zip(blocks, _WIDTHS, strict=True), start=1):
            stage = nn.Sequential()
            for block in range(count):
                stride = 2 if number > 1 and block == 0 else 1
                stage.append(kind(channels, width, stride))
                channels = width * kind.expansion
            self.add_module(f"layer{number}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = channels

    @override
    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, len(_WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        pooled: Tensor = self.avgpool(x)
        return pooled.flatten(1)


class _BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input is led and added: figure 5, left."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)
        self.relu2 = nn.ReLU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu2(inner + self.downsample(x))
        return result


class _Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions around which the input is led: figure 5, right."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride)
        self.relu3 = nn.ReLU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x)))
        inner = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(inner)))))
        result: Tensor = self.relu3(inner + self.downsample(x))
        return result


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Module:
    """The way around a block: a 1×1 convolution where the shape changes (option B, 3.3)."""
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
