"""VGG-16 with batch norm."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.choices import check_choice
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import Linear, initialize_convolutions

Stem = Literal["small", "imagenet"]
# configuration D of the paper's table 1: channels of each convolution, 0 for a max pooling
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
# that go through the convolutions at once: two images of 224 pixels take 1.08 times as long each
# as one, four 1.11 times (medians of four runs on two cores, float32)
_PIXELS = 224 * 224


class VGG(Network):
    """VGG-16 (Simonyan and Zisserman 2015, arXiv:1409.1556), batch norm after each convolution.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        stem: `small` ends in one linear layer on 512 features (14,728,266 parameters for three
            channels and ten classes); `imagenet` has the paper's three, under torchvision's names.
        dropout: Share of the two hidden layers of `imagenet` that is dropped in training, 0..1.
    """

    min_size = 32

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        stem: Stem = "small",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_choice("stem", stem, Stem)
        self.default_size = 32 if stem == "small" else 224
        self.backbone = _Backbone(in_channels, stem, dropout)
        self.num_features = 512 if stem == "small" else 4096
        self.head = nn.Linear(self.num_features, num_classes)
        initialize_convolutions(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # torchvision's, narrower than torch's own
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    @override
    def features_of(self, parts: Iterable[Tensor]) -> Tensor:
        backbone = self.backbone
        if not isinstance(backbone, _Backbone):  # someone's own
            return super().features_of(parts)
        maps = [backbone.convolve(few) for part in parts for few in _few_at_a_time(part)]
        features: Tensor = backbone.classifier(torch.cat(maps))
        return features

    @override
    def rename_torchvision_key(self, key: str) -> str:
        if key.startswith("classifier.6."):
            return key.replace("classifier.6.", "head.", 1)
        return f"backbone.{key}"


class _Backbone(nn.Module):
    def __init__(self, in_channels: int, stem: str, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in _LAYERS:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        side = 1 if stem == "small" else 7
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        hidden: list[nn.Module] = []
        if stem == "imagenet":
            hidden = [
                Linear(512 * 7 * 7, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        self.classifier = nn.Sequential(*hidden)

    @override
    def forward(self, images: Tensor) -> Tensor:
        features = self.avgpool(self.features(images)).flatten(1)
        result: Tensor = self.classifier(features)
        return result

    def convolve(self, images: Tensor) -> Tensor:
        """What the linear layers see of images, N×512 or N×25,088; without gradients."""
        maps = images
        for layer in self.features:
            # in place: of large images a layer's maps are most of what is in memory
            if type(layer) is nn.BatchNorm2d:
                maps = _normalize_(maps, layer)
            else:
                maps = torch.relu_(maps) if type(layer) is nn.ReLU else layer(maps)
        pooled: Tensor = self.avgpool(maps)
        return pooled.flatten(1)


def _normalize_(maps: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """What a batch norm in eval mode gives for N×C×H×W; float32 in place."""
    mean, variance = layer.running_mean, layer.running_var
    if maps.dtype != torch.float32 or mean is None or variance is None:
        normalized: Tensor = layer(maps)
        return normalized
    scale = layer.weight / torch.sqrt(variance + layer.eps)
    shift = layer.bias - mean * scale
    return torch.addcmul(shift[:, None, None], maps, scale[:, None, None], out=maps)


def _few_at_a_time(images: Tensor) -> Sequence[Tensor]:
    """Images N×C×H×W in parts of as many as a CPU's caches hold the maps of."""
    if images.device.type != "cpu":
        return (images,)
    height, width = images.shape[-2:]
    return torch.split(images, max(1, _PIXELS // (height * width)))
