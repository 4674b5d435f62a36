"""What every network has: a backbone that gives features, a head that gives logits."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.errors import UserError


class Network(nn.Module):
    """Images N×C×H×W float32 to features N×F by `backbone`, to logits N×K by `head`.

    Attributes:
        backbone: All but the last layer.
        head: The last layer.
        min_size: Least height and width of an image in pixels.
        max_size: Greatest height and width, `None` where there is no limit.
        default_size: Side that images are resized to which the network cannot take, or which its
            pretrained weights were trained with.
        num_features: Features F that the backbone gives for an image.
        auxiliary_weight: Share of each auxiliary head's loss in the training loss.
        channels_last: Whether it trains faster with a batch's values in memory pixel by pixel, and
            not plane by plane; see `commands.benchmarking.layouts`.

    Example:
        >>> import torch
        >>> class Tiny(Network):
        ...     min_size = 8
        ...
        ...     def __init__(self, num_classes: int) -> None:
        ...         super().__init__()
        ...         pooling = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        ...         self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *pooling)
        ...         self.head = nn.Linear(4, num_classes)
        >>> Tiny(num_classes=2)(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 2])
    """

    backbone: nn.Module
    head: nn.Module
    min_size: int = 1
    max_size: int | None = None
    default_size: int = 224
    num_features: int
    auxiliary_weight: float = 0.0
    channels_last: bool = True

    @property
    def title(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def first_conv(self) -> nn.Conv2d | None:
        """The convolution that sees the image; its `in_channels` are the image's colours.

        `None` of a network without convolutions.
        """
        return next((module for module in self.modules() if isinstance(module, nn.Conv2d)), None)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Logits N×K, in train mode too.

        Raises:
            UserError: The images are too small or too large.
        """
        self.check_size(images)
        return cast(Tensor, self.head(self.backbone(images)))

    def auxiliary_logits(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits N×K of the head, and those of each auxiliary head.

        Raises:
            UserError: The images are too small or too large.
        """
        return self(images), []

    def features_of(self, parts: Iterable[Tensor]) -> Tensor:
        """What the backbone gives for images that come a few at a time, without gradients.

        Only as many images as a part has are in memory at once, prepared, and their maps.

        Args:
            parts: n×C×H×W float32 each, N images in all.

        Returns:
            Features N×F, as `backbone` gives them.
        """
        return torch.cat([self.backbone(part) for part in parts])

    def check_size(self, images: Tensor) -> None:
        """Raise `UserError` if the network cannot take images N×C×H×W of this size."""
        height, width = images.shape[-2:]
        if min(height, width) < self.min_size:
            raise UserError(
                f"{self.title} cannot take images of {height}×{width} pixels",
                f"the least it can take is {self.min_size}×{self.min_size}",
            )
        if self.max_size is not None and max(height, width) > self.max_size:
            raise UserError(
                f"{self.title} cannot take images of {height}×{width} pixels",
                f"the most it can take is {self.max_size}×{self.max_size}",
            )

    def rename_torchvision_key(self, key: str) -> str:
        """Our name for an entry of the state dict of torchvision's network of this kind."""
        return key.replace("fc.", "head.", 1) if key.startswith("fc.") else f"backbone.{key}"
