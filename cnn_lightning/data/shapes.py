"""Drawn shapes: a data set with nothing to download, in which one knows where to look."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.data.base import Augment, ImageDataModule, Split
from cnn_lightning.errors import UserError
from cnn_lightning.randomness import generator

# images drawn at once: bounds the memory, about 100 MB
_CHUNK = 2048
# least distance of the shape's colour from the background's, in RGB units of 0..1
_CONTRAST = 0.35
# standard deviation of the noise on every value, in units of 0..1
_NOISE = 0.06


class ShapesDataModule(ImageDataModule):
    """Ten shapes of any colour, place, size and angle, one per image, on a darker background.

    Args:
        num_images: Training images, validation included.
        num_test: Test images.
        seed: Alone decides what is drawn.
        image_size: Height and width in pixels, at least 16.
        **kwargs: As for `ImageDataModule`; `root` is not used.

    Example:
        >>> images, labels = ShapesDataModule(num_images=20).load("train")
        >>> images.shape, images.dtype, labels.shape
        (torch.Size([20, 3, 32, 32]), torch.uint8, torch.Size([20]))
    """

    class_names = (
        "circle", "square", "triangle", "cross", "ring",
        "star", "diamond", "crescent", "bar", "heart",
    )  # fmt: skip
    image_shape = (3, 32, 32)
    # measured over the training set of the default arguments
    mean = (0.426, 0.429, 0.424)
    std = (0.282, 0.282, 0.284)
    default_augment: Augment = "none"  # the drawing has every variation that they would add

    def __init__(
        self,
        *,
        num_images: int = 10_000,
        num_test: int = 2_000,
        seed: int = 0,
        image_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_images < 20 or num_test < 10 or image_size < 16:
            raise UserError(
                f"num_images {num_images}, num_test {num_test}, image_size {image_size}: too small",
                "use at least 20 and 10 images, for ten classes, and 16 pixels",
            )
        self.num_images: dict[Split, int] = {"train": num_images, "test": num_test}
        self.seed = seed
        self.image_shape = (3, image_size, image_size)
        self._masks: dict[Split, Tensor] = {}

    @override
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        images, labels, self._masks[split] = draw_shapes(
            self.num_images[split],
            generator("shapes", split, self.seed),
            size=self.image_shape[1],
        )
        return images, labels

    def masks(self, split: Split) -> Tensor:
        """Where the shapes of a split are: N×H×W bool, in the order of its images."""
        self.load(split)
        return self._masks[split]


def draw_shapes(
    num_images: int, draws: torch.Generator, *, size: int = 32
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images of one shape each; every class as often as the others, give or take one.

    Args:
        num_images: N.
        draws: Where the random numbers come from, on the CPU.
        size: Height and width in pixels.

    Returns:
        Images N×3×size×size uint8, labels N int64 in the order of `ShapesDataModule.class_names`,
        and masks N×size×size bool that are true where the shape covers half of a pixel or more.
    """
    labels = torch.randperm(num_images, generator=draws) % len(_DISTANCES)
    chunks = [_draw(part, size, draws) for part in torch.split(labels, _CHUNK)]
    images, masks = zip(*chunks, strict=True)
    return torch.cat(images), labels, torch.cat(masks)


def _draw(labels: Tensor, size: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    coverage = _cover(labels, size, draws)
    below, above = _colours(len(labels), draws)
    images = torch.lerp(below, above, coverage[:, None])
    images += _NOISE * torch.randn(images.shape, generator=draws)
    return images.clamp_(0, 1).mul_(255).round_().to(torch.uint8), coverage >= 0.5


def _cover(labels: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """The share of each pixel that the shape covers, N×size×size float, from its distance."""
    number = torch.rand(4, len(labels), 1, 1, generator=draws)
    radius = size * (0.2 + 0.2 * number[0])
    angle = 2 * math.pi * number[1]
    pixels = torch.arange(size) + 0.5
    # the circle around the shape stays inside the image
    x = pixels[None, None, :] - (radius + number[2] * (size - 2 * radius))
    y = pixels[None, :, None] - (radius + number[3] * (size - 2 * radius))
    # turned, upwards, and in units in which every shape fits the circle of radius 1
    across = (x * angle.cos() + y * angle.sin()) / radius
    upwards = (x * angle.sin() - y * angle.cos()) / radius
    distance = torch.empty_like(across)
    for label, shape in enumerate(_DISTANCES):
        members = (labels == label).nonzero().flatten()
        distance[members] = shape(across[members], upwards[members])
    return (0.5 - distance * radius).clamp_(0, 1)  # smooth over one pixel


def _colours(count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Colours of background and shape, N×3×1×1 in 0..1, apart by `_CONTRAST`; the shape's brighter.

    Were it darker as often, LeNet would stay at chance for its first epochs.
    """
    one, two = torch.rand(2, count, 3, 1, 1, generator=draws)
    is_faint = (one - two).norm(dim=1, keepdim=True) < _CONTRAST
    two = torch.where(is_faint, (one + 0.5) % 1, two)
    is_brighter = one.mean(1, keepdim=True) > two.mean(1, keepdim=True)
    return torch.where(is_brighter, two, one), torch.where(is_brighter, one, two)


# Distances from the edge, negative inside, after Inigo Quilez
# (https://iquilezles.org/articles/distfunctions2d). `max` cuts and `min` joins shapes; both keep
# the distance exact at straight edges, which is what smooth edges need.


def _disc(x: Tensor, y: Tensor, radius: float) -> Tensor:
    return torch.hypot(x, y) - radius


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return _disc(x, y, 0.85)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.7, 0.7)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(0.5 * y + math.sqrt(0.75) * x.abs(), -y) - 0.5


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return _disc(x, y, 0.72).abs() - 0.2


def _star(x: Tensor, y: Tensor) -> Tensor:
    # one edge of ten, from a tip at (1, 0) to an inner corner, folded onto all the others
    sector = math.pi / 5
    angle = (torch.atan2(x, y) % (2 * sector) - sector).abs().sub(sector).abs()
    radius, inner = torch.hypot(x, y), 0.42
    edge_x, edge_y = inner * math.cos(sector) - 1, inner * math.sin(sector)
    cross = edge_y * (radius * angle.cos() - 1) - edge_x * radius * angle.sin()
    return cross / math.hypot(edge_x, edge_y)


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (2 * x.abs() + y.abs() - 1) / math.sqrt(5)


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_disc(x, y, 0.95), -_disc(x - 0.45, y, 0.75))


def _bar(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.95, 0.2)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    # a square on its corner, with a half disc on each of its upper sides
    half = 0.5
    right, left = (x + y + 0.15) * math.sqrt(0.5), (y + 0.15 - x) * math.sqrt(0.5)
    lobes = torch.minimum(_disc(right - half, left, half), _disc(right, left - half, half))
    return torch.minimum(_box(right, left, half, half), lobes)


_DISTANCES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _circle, _square, _triangle, _cross, _ring, _star, _diamond, _crescent, _bar, _heart,
)  # fmt: skip
