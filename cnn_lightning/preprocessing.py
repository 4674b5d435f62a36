"""From images as they are stored to images as a network takes them, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Resize and normalise a batch: (image / 255 - mean) / std, channel by channel.

    The same object prepares images for training, testing and prediction, and travels in the
    checkpoint, so that all three see an image alike. An image comes out with the same bits in
    whatever batch it is.

    Args:
        mean: Mean of each channel, in units of the brightest value: 0..1.
        std: Standard deviation of each channel in the same unit, above 0.
        size: Side in pixels of the square that images are resized to; `None` leaves them as is.
        channels_last: Whether prepared images lie in memory pixel by pixel, and not plane by plane;
            their values are the same.

    Raises:
        ValueError: `mean` and `std` differ in length or are empty, a `std` is not above 0, or
            `size` is below 1.

    Example:
        >>> prepare = Preprocessing(mean=(0.5,), std=(0.25,))
        >>> prepare(torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2))
        tensor([[[[-2.,  2.]]]])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Refuse constants that cannot be meant, and make those of numpy and torch Python's."""
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} need one number per channel")
        if not all(std > 0 for std in self.std):
            raise ValueError(f"std {self.std} must be above 0")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size {self.size} must be at least 1")

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare images for a network.

        Args:
            images: N×C×H×W uint8.

        Returns:
            N×C×S×S float32 on the device of `images`; S×S is H×W if `size` is `None`. Resized
            bilinearly, with antialiasing when a side shrinks.

        Raises:
            ValueError: `images` is not N×C×H×W uint8 with one channel per mean.
        """
        self._check(images)
        if images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, these are {images.dtype}")
        # plane by plane to the very end: faster here than on pixels of three values, and one
        # layout means one kernel, so the same bits
        prepared = self._resize(images.contiguous().to(torch.float32))
        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        # not addcmul: its fused rounding depends on where in the batch a value lies
        prepared.mul_(_per_channel(scale, images)).add_(_per_channel(shift, images))
        if not self.channels_last:
            return prepared
        return prepared.contiguous(memory_format=torch.channels_last)

    def undo(self, images: Tensor) -> Tensor:
        """Turn prepared images back into ones to look at; the size stays.

        Args:
            images: N×C×H×W float, normalised.

        Returns:
            N×C×H×W uint8, values outside 0..255 clamped.

        Raises:
            ValueError: `images` has not one channel per mean.
        """
        self._check(images)
        bright = images.to(torch.float32) * _per_channel([255 * std for std in self.std], images)
        bright = bright + _per_channel([255 * mean for mean in self.mean], images)
        return bright.round_().clamp_(0, 255).to(torch.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Lists and numbers only, for a checkpoint that loads with `weights_only=True`.

        Without the layout, which is the network's affair.
        """
        return {"mean": list(self.mean), "std": list(self.std), "size": self.size}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `as_dict` gave."""
        return cls(tuple(values["mean"]), tuple(values["std"]), values["size"])

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"images must be N×{len(self.mean)}×H×W, these are {tuple(images.shape)}"
            )

    def _resize(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.size is None or (height, width) == (self.size, self.size):
            return images
        return F.interpolate(
            images,
            (self.size, self.size),
            mode="bilinear",
            align_corners=False,
            antialias=self.size < max(height, width),
        )


def _per_channel(values: Sequence[float], images: Tensor) -> Tensor:
    return _constants(tuple(values), images.device)


# the same few at every step: to copy them to a GPU each time is to wait for the GPU
@lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # they outlive the mode that they are first needed in
        return torch.tensor(values, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
