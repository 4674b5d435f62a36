"""Small images first: early steps cost less, and the last ones see what is tested."""

from itertools import pairwise

from torch import Tensor
from torch.nn import functional as F

from cnn_lightning.errors import UserError
from cnn_lightning.networks import Network

Stages = list[tuple[int, float]]
"""(side in pixels, share of the run until which it holds) of each stage, in order."""


def check_stages(stages: Stages) -> None:
    """Refuse stages that cannot be meant.

    Raises:
        UserError: A size is below 1, or shares do not rise within 0..1.
    """
    shares = [0.0, *(share for _, share in stages)]
    rising = all(one < other <= 1 for one, other in pairwise(shares))
    if not rising or any(size < 1 for size, _ in stages):
        raise UserError(
            f"progressive_size is {[list(stage) for stage in stages]}",
            "give [side in pixels, share of the run until which it holds], shares rising in 0..1, "
            "such as [[16, 0.3], [24, 0.6]]",
        )


def check_sizes(stages: Stages, network: Network, full: int) -> None:
    """Refuse sizes that a network cannot take, or that are no smaller than the images.

    Args:
        stages: Stages of a run.
        network: What takes the images.
        full: Side of the images after all stages.

    Raises:
        UserError: There is such a size.
    """
    for size, _ in stages:
        if not network.min_size <= size < full:
            raise UserError(
                f"progressive_size asks for images of {size} pixels",
                f"{type(network).__name__} takes {network.min_size} or more, and the images are of "
                f"{full}",
            )


def size_at(stages: Stages, progress: float) -> int | None:
    """The side in pixels at `progress` of the run, 0..1; `None` where images keep their size.

    Example:
        >>> [size_at([(16, 0.3), (24, 0.6)], progress) for progress in (0, 0.3, 0.59, 0.6)]
        [16, 24, 24, None]
    """
    return next((size for size, share in stages if progress < share), None)


def shrink(images: Tensor, size: int) -> Tensor:
    """Resize a batch so that the shorter side has `size` pixels, bilinearly with antialiasing.

    Args:
        images: N×C×H×W float.
        size: At least 1.

    Returns:
        N×C×h×w with the dtype, device and memory format of `images`.
    """
    height, width = images.shape[2:]
    scale = size / min(height, width)
    shape = (round(height * scale), round(width * scale))
    return F.interpolate(images, shape, mode="bilinear", align_corners=False, antialias=True)
