"""The kernels of a convolution."""

import itertools
import math

from torch import Tensor

from cnn_lightning.figures.sheet import Sheet
from cnn_lightning.figures.tiles import Tile, describe_number, draw_tiles, image_pixels, map_pixels

_COLUMNS = 16


def draw_kernels(
    weight: Tensor, title: str, *, max_kernels: int = 64, sees_image: bool = True
) -> Sheet:
    """Draw the kernels of a convolution, each on a scale of its own around 0, those of 1×1 on one.

    Kernels that see an image of three channels appear in colour: grey is 0, and a channel brighter
    than grey is a positive weight for that colour. Others appear in purple (negative), white (0)
    and orange (positive), one input channel each.

    Args:
        weight: F×C×h×w float: output channels, input channels (of the group), height, width.
        title: Stands above all, with the number and size of the kernels.
        max_kernels: Draw only the first so many.
        sees_image: Whether the input channels are an image's, and not those of a layer.

    Returns:
        A sheet as large as needed.

    Raises:
        ValueError: `weight` has not four dimensions.
    """
    if weight.ndim != 4:
        raise ValueError(f"weight must be F×C×h×w, not {tuple(weight.shape)}")
    weight = weight.detach().float().cpu()
    num_outputs, num_inputs = weight.shape[:2]
    in_colour = sees_image and num_inputs == 3
    per_output = 1 if in_colour else num_inputs
    kernels = (  # of a wide layer there are millions
        (f"{output}", weight[output])
        if in_colour or num_inputs == 1
        else (f"{output}←{source}", weight[output, source, None])
        for output in range(num_outputs)
        for source in range(per_output)
    )
    title += f"\n{num_outputs} × {num_inputs} kernels of {weight.shape[2]}×{weight.shape[3]}"
    if in_colour:
        title = title.replace(" kernels", " (red, green, blue) kernels")
    if num_outputs * per_output > max_kernels:
        title += f", the first {max_kernels} shown"
    title += "\ngrey is 0, brighter is above" if in_colour else "\npurple is below 0, orange above"
    drawn = list(itertools.islice(kernels, max_kernels))
    # of a single number, a scale of its own would show no more than the sign
    most = None
    if weight.shape[2:] == (1, 1):
        most = max(float(kernel.abs().amax()) for _, kernel in drawn)
        title += f", one scale for all: ±{describe_number(most)}"
    tiles = [_draw(name, kernel, most) for name, kernel in drawn]
    # as square as the number allows
    columns = min(_COLUMNS, math.ceil(math.sqrt(2 * len(tiles))), len(tiles))
    rows: list[list[Tile | None]] = []
    for start in range(0, len(tiles), columns):
        row: list[Tile | None] = [*tiles[start : start + columns]]
        rows.append(row + [None] * (columns - len(row)))
    return draw_tiles(title, rows)


def _draw(name: str, kernel: Tensor, most: float | None) -> Tile:
    if most is None:
        most = float(kernel.abs().amax())
        head = f"{name}\n±{describe_number(most)}"
    else:
        head = name if len(kernel) == 3 else f"{name}\n{describe_number(float(kernel))}"
    if len(kernel) == 3:
        shade = (kernel / (2 * most) + 0.5 if most > 0 else kernel + 0.5) * 255
        return Tile(image_pixels(shade.round().clamp(0, 255).byte()), head)
    return Tile(map_pixels(kernel[0], -most, most, "PuOr_r"), head)
