"""What the channels of a layer put out, beside the images that they saw."""

from collections.abc import Sequence

from torch import Tensor

from cnn_lightning.figures.sheet import Sheet
from cnn_lightning.figures.tiles import (
    Tile,
    describe_range,
    draw_tiles,
    image_pixels,
    map_pixels,
)

_COLUMNS = 16


def draw_feature_maps(
    images: Tensor,
    maps: Tensor,
    title: str,
    *,
    names: Sequence[str] | None = None,
    max_channels: int | None = None,
    num_channels: int | None = None,
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
        num_channels: Channels that the layer has; `None` if `maps` holds all of them.

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
    num_channels = num_channels or maps.shape[1]
    title += f"\n{num_channels} channels of {maps.shape[2]}×{maps.shape[3]}"
    if shown < num_channels:
        title += f", the first {shown} shown"
    title += "\ndark to bright: each channel's least to greatest value"
    lows, highs = maps.amin((0, 2, 3)).tolist(), maps.amax((0, 2, 3)).tolist()
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
