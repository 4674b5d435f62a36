"""Where in an image a network finds its evidence for a class: Grad-CAM and occlusion."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from captum.attr import LayerAttribution, LayerGradCam, Occlusion
from torch import Tensor, nn

# ResNet's last layer at 224 pixels has 7×7 cells, the coarsest that the paper draws (arXiv version,
# section 4.1: 14×14 for VGG-16); at 32 pixels the last layers have 4×4, 2×2 or 1×1, too few to tell
# where the evidence is
MIN_CELLS = 7
# images in one forward pass of the occlusion: bounds the memory
_MAX_BATCH = 256
_POOLINGS = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)


def find_cam_layer(network: nn.Module, images: Tensor) -> str:
    """The layer that Grad-CAM explains best: the deepest with a map fine enough to show places.

    Deep layers know classes, early ones know places (Selvaraju et al., section 3). Of the layers
    in the order in which they run, this is the last whose output has at least 7×7 cells and does
    not come straight from a pooling: the last stage of a residual network at 224 pixels, the third
    at 32 pixels. Where several modules give the same tensor, it is the outermost.

    Args:
        network: Images to logits.
        images: N×C×H×W float, as the network takes them; the first alone is looked at.

    Returns:
        Its name in `network.named_modules()`.

    Raises:
        ValueError: No layer has so large an output.
    """
    outputs: list[tuple[str, nn.Module, Tensor]] = []
    handles = []

    def record(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append((name, module, output))

    with _evaluating(network), torch.no_grad():
        try:
            for name, module in network.named_modules():
                handles.append(
                    module.register_forward_hook(
                        lambda module, _, output, name=name: record(name, module, output)
                    )
                )
            network(images[:1])
        finally:
            for handle in handles:
                handle.remove()
    pooled = [id(output) for _, module, output in outputs if isinstance(module, _POOLINGS)]
    for name, _, output in reversed(outputs):
        if output.ndim == 4 and min(output.shape[2:]) >= MIN_CELLS and id(output) not in pooled:
            return name
    raise ValueError(
        f"no layer of {type(network).__name__} gives {MIN_CELLS}×{MIN_CELLS} cells or more for "
        f"images of {images.shape[2]}×{images.shape[3]}"
    )


def grad_cam(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """What in a layer speaks for a class, as a map over the image.

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2): the layer's channels,
    each weighted by the mean gradient of the class's logit over it, summed, and cut off below 0.
    Weights, their gradients and each module's mode are left as they were; frozen weights do not
    matter.

    Args:
        network: Images to logits N×K.
        layer: One of its modules, with an output N×C×H'×W'.
        images: N×C×H×W float, as the network takes them.
        targets: N int64, the class asked for in each image.

    Returns:
        N×H×W float at least 0, enlarged bilinearly from H'×W', in units of the logit times H'·W'.

    Raises:
        ValueError: The layer's output is not N×C×H'×W', or `targets` is not N.
    """
    _check(images, targets)
    with _evaluating(network):
        maps = LayerGradCam(network, layer).attribute(images, targets, relu_attributions=True)
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        raise ValueError("Grad-CAM needs a layer whose output is N×C×H×W")
    large = LayerAttribution.interpolate(maps, tuple(images.shape[2:]), "bilinear")
    return large.detach()[:, 0]


def occlusion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    window: int,
    stride: int,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """How much a class loses when a part of the image is covered.

    A square is moved over the image, and the fall of the class's probability is noted (Zeiler and
    Fergus 2014, arXiv:1311.2901, section 4.2); a pixel gets the mean over all squares that cover
    it. Squares that reach over the far border are cut off there.

    Args:
        network: Images to logits N×K.
        images: N×C×H×W float, as the network takes them.
        targets: N int64, the class asked for in each image.
        window: Side of the square in pixels, at most H and W.
        stride: Pixels from one place of the square to the next, at most `window`.
        baseline: What covers: a number, or a tensor that broadcasts to `images`; 0 is the mean
            colour of normalised images.

    Returns:
        N×H×W float in -1..1; above 0 where the class needs what is there, below 0 where it would
        gain without.

    Raises:
        ValueError: The square does not fit the image, leaves gaps, or `targets` is not N.
    """
    _check(images, targets)
    num_images, channels, height, width = images.shape
    if not 1 <= stride <= window <= min(height, width):
        raise ValueError(
            f"a window of {window} with stride {stride} does not cover images of {height}×{width}"
        )

    def fall_from(covered: Tensor) -> Tensor:
        return network(covered).float().softmax(1)

    with _evaluating(network), torch.no_grad():
        falls = Occlusion(fall_from).attribute(
            images,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            baselines=baseline,
            target=targets,
            perturbations_per_eval=max(1, _MAX_BATCH // num_images),
        )
    return falls[:, 0].contiguous()  # the same in every channel


def _check(images: Tensor, targets: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must be N×C×H×W, these are {tuple(images.shape)}")
    if targets.shape != images.shape[:1]:
        raise ValueError(f"{tuple(targets.shape)} targets for {len(images)} images")


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode; each module's own mode comes back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
