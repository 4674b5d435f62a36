"""What the channels of a layer put out, beside the images that they saw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from cnn_lightning.figures.sheet import Sheet
from cnn_lightning.figures.tiles import (
    Tile,
    describe_range,
    draw_tiles,
    image_pixels,
    map_pixels,
    shown_size,
)

_COLUMNS = 16


@dataclass(frozen=True)
class WholeMaps:
    """What is written of a layer's maps, where only some of them are drawn, or made smaller.

    Attributes:
        num_channels: Channels of the layer.
        height: Of a channel, as the layer puts it out.
        width: Likewise.
        lows: The least value of each channel that is drawn, F.
        highs: The greatest, F.
    """

    num_channels: int
    height: int
    width: int
    lows: Tensor
    highs: Tensor

    @classmethod
    def of(cls, maps: Tensor, num_channels: int) -> "WholeMaps":
        """Of maps N×F×h×w, the first of so many channels."""
        lows, highs = maps.amin((0, 2, 3)).cpu(), maps.amax((0, 2, 3)).cpu()
        return cls(num_channels, maps.shape[2], maps.shape[3], lows, highs)

    def joined(self, other: "WholeMaps") -> "WholeMaps":
        """Of these maps and those of other images."""
        lows, highs = self.lows.minimum(other.lows), self.highs.maximum(other.highs)
        return WholeMaps(self.num_channels, self.height, self.width, lows, highs)


def shrink_maps(maps: Tensor, num_images: int, image_size: tuple[int, int]) -> Tensor:
    """Maps as small as `draw_feature_maps` shows them: each value the mean of those it stands for.

    Args:
        maps: n×F×h×w float, of some of the images.
        num_images: Images that are drawn.
        image_size: Their height and width.

    Returns:
        n×F×h'×w' float32; of maps larger than their images as they are.
    """
    maps = maps.float()
    channels, height, width = maps.shape[1:]
    if height > image_size[0] or width > image_size[1]:
        return maps  # all tiles are as large as the largest, which they are then
    count = num_images * (channels + math.ceil(channels / _COLUMNS))
    shown_height, shown_width = shown_size(count, *image_size)
    if height <= shown_height and width <= shown_width:
        return maps
    return F.interpolate(maps, (min(height, shown_height), min(width, shown_width)), mode="area")


def draw_feature_maps(
    images: Tensor,
    maps: Tensor,
    title: str,
    *,
    names: Sequence[str] | None = None,
    max_channels: int | None = None,
    whole: WholeMaps | None = None,
) -> Sheet:
    """Draw images, a row each, with the channels of a layer beside them, 16 to a row.

    Each channel has a scale of its own, the same for all images: dark is its least value, bright
    its greatest, and both stand above it.

    Args:
        images: N×C×H×W uint8 as the network sees them, C 1 (grey) or 3 (colour); of
            others the mean is shown.
        maps: N×F×h×w float, the output of the layer, or of its first channels, for these images.
        title: Stands above all, with the number and size of the channels.
        names: What the images are.
        max_channels: Draw only the first so many; `None` draws all.
        whole: Of the maps that `maps` is a part of, or made smaller from; `None` if it is neither.

    Returns:
        A sheet as large as needed.

    Raises:
        ValueError: `images` and `maps` differ in number, or `maps` has not four dimensions.
    """
    if maps.ndim != 4 or len(maps) != len(images):
        raise ValueError(
            f"maps must be {len(images)}×F×h×w for {len(images)} images, not {tuple(maps.shape)}"
        )
    shown = min(maps.shape[1], max_channels or maps.shape[1])
    whole = whole or WholeMaps.of(maps, maps.shape[1])
    title += f"\n{whole.num_channels} channels of {whole.height}×{whole.width}"
    if shown < whole.num_channels:
        title += f", the first {shown} shown"
    title += "\ndark to bright: each channel's least to greatest value"
    lows, highs = whole.lows.tolist(), whole.highs.tolist()
    coloured = [
        map_pixels(maps[:, channel], lows[channel], highs[channel]) for channel in range(shown)
    ]
    rows: list[list[Tile | None]] = []
    row_names: list[str] = []
    for start in range(0, shown, _COLUMNS):
        channels = range(start, min(start + _COLUMNS, shown))
        for number, image in enumerate(images):
            row: list[Tile | None] = [Tile(image_pixels(image), "" if number else "image")]
            for channel in channels:
                span = describe_range(lows[channel], highs[channel])
                head = "" if number else f"channel {channel}\n{span}"
                row.append(Tile(coloured[channel][number], head))
            row += [None] * (min(shown, _COLUMNS) - len(channels))
            rows.append(row)
            row_names.append(names[number] if names is not None else "")
    return draw_tiles(title, rows, row_names)
