"""Where in an image a network finds its evidence for a class: Grad-CAM and occlusion."""

import itertools
from typing import Literal, cast

import torch
from captum.attr import LayerGradCam, Occlusion
from torch import Tensor, nn
from torch.nn import functional as F

from cnn_lightning.analysis.activations import evaluating, in_eval_mode, listening
from cnn_lightning.analysis.placement import locate_cells, place_maps

# that of a residual network at 224 pixels; fewer cells can hardly tell places apart
MIN_CELLS = 7
Mirrors = Literal["none", "horizontal", "both"]
# the axes of N×C×H×W over which images are turned, the image itself among them
MIRRORS: dict[Mirrors, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (3,)),
    "both": ((), (3,), (2,), (2, 3)),
}
# images in one forward pass of the occlusion, and values in them: both bound the memory, of which a
# VGG-16 takes 30 MB for each image of 224 pixels
_MAX_BATCH = 256
_MAX_VALUES = _MAX_BATCH * 4 * 32 * 32
_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def find_cam_layer(network: nn.Module, images: Tensor) -> str:
    """The layer for Grad-CAM: the deepest with a map fine enough to show places.

    Deep layers know classes, early ones know places (Selvaraju et al., section 3). Of the layers in
    the order in which they run, this is the last whose output has at least 7×7 cells, is not that
    of a pooling, and is all that the rest of the network sees of the image: no branch of a block,
    around which another leads. For a residual network that is the last stage, and the one before it
    for images of 32 pixels, of which the last has 4×4 cells. Where several modules give the same
    tensor, it is the outermost.

    Args:
        network: Images to logits.
        images: N×C×H×W float, as the network takes them; the first alone is looked at.

    Returns:
        Its name in `network.named_modules()`.

    Raises:
        ValueError: No layer has so large an output.
    """
    modules = dict(network.named_modules())
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str, output: Tensor) -> None:
        outputs.append((name.partition("#")[0], output))  # the second call of relu is relu#2

    with evaluating(network), listening(modules, keep):
        network(images[:1])
    tried = {id(output) for name, output in outputs if isinstance(modules[name], _POOLINGS)}
    for name, output in reversed(outputs):
        if output.ndim == 4 and min(output.shape[2:]) >= MIN_CELLS and id(output) not in tried:
            if _carries_all(network, modules[name], images[:1]):
                return name
            tried.add(id(output))
    raise ValueError(
        f"no layer of {type(network).__name__} gives {MIN_CELLS}×{MIN_CELLS} cells or more for "
        f"images of {images.shape[2]}×{images.shape[3]}"
    )


def _carries_all(network: nn.Module, layer: nn.Module, images: Tensor) -> bool:
    """Whether nothing of the images reaches the logits if not by way of a layer's output."""
    handle = layer.register_forward_hook(lambda module, inputs, output: output.detach())
    try:
        with in_eval_mode(network), torch.enable_grad():
            images = images.detach().clone().requires_grad_()
            logits = network(images)
            if not logits.requires_grad:
                return True
            (gradient,) = torch.autograd.grad(logits.sum(), images, allow_unused=True)
            return gradient is None
    finally:
        handle.remove()


def grad_cam(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    num_shifts: int = 5,
    mirrors: Mirrors = "none",
) -> Tensor:
    """What in a layer speaks for a class, as a map over the image.

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2): the layer's channels,
    each weighted by the mean gradient of the class's logit over it, summed, and cut off below 0.
    Weights, their gradients and each module's mode are left as they were; frozen weights do not
    matter.

    A cell of a deep layer stands for several pixels. So the map is the mean over images that are
    moved by parts of a cell, each map moved back; what comes in at the border repeats its pixels.
    And convolutions with stride 2 and padding 1 look further up and left than down and right, for
    which a network makes up in part: what is left cancels over mirror images, each map mirrored
    back. In a ResNet-18 that knows 99 % of the drawn shapes, its peak lies on the shape in 70 % of
    the images as published, in 75 % with moves, and in 80 % with mirrors.

    Args:
        network: Images to logits N×K.
        layer: One of its modules, with an output N×C×H'×W'.
        images: N×C×H×W float, as the network takes them.
        targets: N int64, the class asked for in each image.
        num_shifts: Places of the image along each side, odd; 1 is the paper's method as it stands.
        mirrors: Which mirror images count too: `horizontal` where left and right are alike, as in
            photographs, `both` where up and down are as well, as in drawn shapes.

    Returns:
        N×H×W float at least 0, enlarged bilinearly from H'×W', cells as far apart as they look; 0
        throughout where the class gets no evidence.

    Raises:
        ValueError: The layer's output is not N×C×H'×W', `targets` is not N, or `num_shifts` even.
    """
    _check(images, targets)
    if num_shifts < 1 or num_shifts % 2 == 0:
        raise ValueError(f"num_shifts is {num_shifts}, it must be odd and at least 1")
    grids = locate_cells(network, layer, images)
    moves = itertools.product(*(_parts_of(grid.step, num_shifts) for grid in grids))
    views = list(itertools.product(MIRRORS[mirrors], moves))
    total = torch.zeros_like(images[:, :1])
    for axes, (rows, columns) in views:
        with in_eval_mode(network):
            maps = cast(
                Tensor,
                LayerGradCam(network, layer).attribute(
                    _move(images.flip(axes), rows, columns), targets, relu_attributions=True
                ),
            )
        placed = place_maps(maps.detach()[:, 0], grids, (images.shape[2], images.shape[3]))
        total += _move(placed[:, None], -rows, -columns).flip(axes)
    return total[:, 0] / len(views)


def _parts_of(step: float, count: int) -> list[int]:
    """Moves by parts of a cell, in whole pixels, evenly about 0; each of them once."""
    return sorted({round(step * (number - count // 2) / count) for number in range(count)})


def _move(images: Tensor, rows: int, columns: int) -> Tensor:
    """Images N×C×H×W moved down and to the right; the pixels at the border are repeated."""
    height, width = images.shape[2:]
    sides = (max(columns, 0), max(-columns, 0), max(rows, 0), max(-rows, 0))
    padded = F.pad(images, sides, mode="replicate")
    top, left = max(-rows, 0), max(-columns, 0)
    return padded[:, :, top : top + height, left : left + width]


def occlusion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    window: int,
    stride: int,
    baseline: float | Tensor | None = None,
) -> Tensor:
    """How much a class loses when a part of the image is covered.

    A square is moved over the image, and the fall of the class's log-odds log p / (1 - p) is noted
    (Zeiler and Fergus 2014, arXiv:1311.2901, section 4.2); a pixel gets the mean over all squares
    that cover it. The paper notes p itself, which in float32 is 1 under every square for a network
    that is sure enough. Squares that reach over the far border are cut off there.

    Args:
        network: Images to logits N×K, K at least 2.
        images: N×C×H×W float, as the network takes them.
        targets: N int64, the class asked for in each image.
        window: Side of the square in pixels, at most H and W.
        stride: Pixels from one place of the square to the next, at most `window`.
        baseline: What covers: a number, such as 0 for the paper's grey, or a tensor that broadcasts
            to `images`. `None` takes the median colour of each image, since a square of another
            colour is itself something to see, and may draw the network's attention.

    Returns:
        N×H×W float; above 0 where the class needs what is there, below 0 where it would gain
        without.

    Raises:
        ValueError: The square does not fit the image, leaves gaps, or `targets` is not N.
    """
    _check(images, targets)
    channels, height, width = images.shape[1:]
    if not 1 <= stride <= window <= min(height, width):
        raise ValueError(
            f"a window of {window} with stride {stride} does not cover images of {height}×{width}"
        )

    if baseline is None:
        baseline = images.flatten(2).median(2).values[..., None, None]
    covers = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).expand_as(images)
    at_once = max(1, min(_MAX_BATCH, _MAX_VALUES // (channels * height * width)))
    method = Occlusion(lambda covered: _log_odds(network(covered).float()))
    with in_eval_mode(network), torch.no_grad():
        falls = [
            method.attribute(
                part,
                sliding_window_shapes=(channels, window, window),
                strides=(channels, stride, stride),
                baselines=cover,
                target=target,
                perturbations_per_eval=max(1, at_once // len(part)),
            )[:, 0]  # the same in every channel
            for part, cover, target in zip(
                *(torch.split(values, at_once) for values in (images, covers, targets)), strict=True
            )
        ]
    return torch.cat(falls)


def _log_odds(logits: Tensor) -> Tensor:
    """N×K logits to log p / (1 - p) of each class, finite however sure the network is."""
    log_p = logits.log_softmax(1)
    odds = log_p - torch.log1p(-log_p.exp())  # exact but for the first class, whose p may be 1
    first = logits.argmax(1, keepdim=True)
    others = logits.scatter(1, first, -torch.inf).logsumexp(1, keepdim=True)
    return odds.scatter(1, first, logits.gather(1, first) - others)


def _check(images: Tensor, targets: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must be N×C×H×W, these are {tuple(images.shape)}")
    if targets.shape != images.shape[:1]:
        raise ValueError(f"{tuple(targets.shape)} targets for {len(images)} images")
