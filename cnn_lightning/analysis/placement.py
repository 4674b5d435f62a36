"""Where in the image the cells of a layer's map are."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnn_lightning.analysis.activations import evaluating

_SLIDING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


class Grid(NamedTuple):
    """The places of a map's rows or columns in the image, in pixels.

    Attributes:
        first: The middle of what the first cell sees; 0 is the middle of the first pixel.
        step: From one cell to the next.
    """

    first: float
    step: float


def locate_cells(network: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Grid, Grid]:
    """Where the cells of a layer look: the middles of their receptive fields.

    A 3×3 convolution of stride 2 with padding 1 looks around pixels 0, 2, 4, …, not around the
    middles 0.5, 2.5, … of equal shares of the image, and such shifts add up: 3.5 pixels in the last
    layer of a residual network at 32 pixels. The middle moves by ((k - 1) d / 2 - p) steps in each
    layer of kernel k, dilation d and padding p (Araujo et al. 2019, "Computing receptive fields of
    convolutional neural networks", Distill). Maps of one size are taken to look alike, whatever
    branch they are in. Where another operation changes the size, its cells are taken to share the
    image evenly, or, if they are more than its pixels, to have been padded on both sides.

    Args:
        network: Images to logits.
        layer: One of its modules, with an output N×C×H'×W'.
        images: N×C×H×W float, as the network takes them; the first alone is looked at.

    Returns:
        Places of the rows and of the columns.
    """
    sides = images.shape[2:]
    known = [{side: Grid(0.0, 1.0)} for side in sides]
    found: list[tuple[int, ...]] = []

    def follow(module: nn.Module, inputs: Any, output: Tensor) -> None:
        for axis in (0, 1):
            before, after = inputs[0].shape[2 + axis], output.shape[2 + axis]
            source = known[axis].setdefault(before, _spread(before, sides[axis]))
            known[axis].setdefault(after, _slide(source, module, axis))

    handles = [
        m.register_forward_hook(follow) for m in network.modules() if isinstance(m, _SLIDING)
    ]
    handles.append(layer.register_forward_hook(lambda *call: found.append(call[2].shape[2:])))
    try:
        with evaluating(network):
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    rows, columns = (
        known[axis].get(found[-1][axis], _spread(found[-1][axis], sides[axis])) for axis in (0, 1)
    )
    return rows, columns


def place_maps(maps: Tensor, grids: tuple[Grid, Grid], size: tuple[int, int]) -> Tensor:
    """Enlarge maps bilinearly, each cell at its place in the image.

    Args:
        maps: N×H'×W' float.
        grids: Places of rows and columns, as `locate_cells` gives them.
        size: Height and width of the image, H and W.

    Returns:
        N×H×W float; beyond the outermost cells their values go on.
    """
    rows, columns = (
        # in units in which a map reaches from -1 to 1, as grid_sample wants it
        ((torch.arange(side, device=maps.device) - grid.first) / grid.step * 2 + 1) / cells - 1
        for side, grid, cells in zip(size, grids, maps.shape[1:], strict=True)
    )
    places = torch.stack(
        [columns[None, :].expand(size[0], -1), rows[:, None].expand(-1, size[1])], 2
    )
    return F.grid_sample(
        maps[:, None],
        places.to(maps.dtype).expand(len(maps), -1, -1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[:, 0]


def _spread(cells: int, side: int) -> Grid:
    """Cells that share the image evenly; or the pixels of an image padded on both sides."""
    if cells > side:
        return Grid((side - cells) / 2, 1.0)
    return Grid((side / cells - 1) / 2, side / cells)


def _slide(source: Grid, module: nn.Module, axis: int) -> Grid:
    kernel, stride, padding, dilation = (
        _along(getattr(module, name, 1), axis)
        for name in ("kernel_size", "stride", "padding", "dilation")
    )
    reach = (kernel - 1) * dilation / 2
    if isinstance(padding, str):  # "same" keeps the middle, "valid" pads nothing
        padding = reach if padding == "same" else 0
    return Grid(source.first + (reach - padding) * source.step, source.step * stride)


def _along(value: Any, axis: int) -> Any:
    return value[axis] if isinstance(value, tuple) else value
