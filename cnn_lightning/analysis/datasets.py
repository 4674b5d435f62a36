"""What a data set's images are like on the whole; read in batches, counted in whole numbers."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# bytes of one batch: it is copied to 64-bit integers, and they fit any computer's memory
_BATCH_BYTES = 4_000_000


def channel_histograms(images: Tensor, indices: Tensor) -> Tensor:
    """How often each value occurs in each channel.

    Args:
        images: N×C×H×W uint8.
        indices: The images to count, M int64 in 0..N-1.

    Returns:
        C×256 int64, on the CPU; each row adds up to M·H·W.

    Example:
        >>> image = torch.tensor([0, 7, 7, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
        >>> channel_histograms(image, torch.tensor([0]))[0, [0, 6, 7, 255]]
        tensor([1, 0, 2, 1])
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for batch in _batches(images, indices):
        for channel in range(len(counts)):
            counts[channel] += torch.bincount(batch[:, channel].flatten(), minlength=256)
    return counts


def histogram_moments(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the values that were counted, in units of 0..1.

    The standard deviation is that of these values themselves (divisor M, not M-1).

    Args:
        counts: C×256 integers, how often each value 0..255 occurs; each row has one at least.

    Returns:
        Mean and standard deviation, each C float64.

    Example:
        >>> counts = torch.zeros(1, 256, dtype=torch.int64)
        >>> counts[0, 0], counts[0, 255] = 3, 1
        >>> histogram_moments(counts)
        (tensor([0.2500], dtype=torch.float64), tensor([0.4330], dtype=torch.float64))
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(1)
    return mean, variance.sqrt()


def mean_images(images: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """The mean of each group of images, pixel by pixel.

    Args:
        images: N×C×H×W uint8.
        groups: K groups, each the indices of its images: one at least, int64 in 0..N-1.

    Returns:
        K×C×H×W float32 in 0..255, from exact sums.

    Raises:
        ValueError: A group is empty.
    """
    means = torch.empty(len(groups), *images.shape[1:])
    for mean, indices in zip(means, groups, strict=True):
        if len(indices) == 0:
            raise ValueError("a group of no images has no mean")
        total = torch.zeros(images.shape[1:], dtype=torch.int64)
        for batch in _batches(images, indices):
            total += batch.sum(0, dtype=torch.int64)
        mean.copy_(total.double() / len(indices))
    return means


def _batches(images: Tensor, indices: Tensor) -> Iterator[Tensor]:
    """The chosen images a few at a time: a large set is a file, mapped into memory."""
    size = max(1, _BATCH_BYTES // images[0].numel())
    for chosen in torch.split(indices, size):
        yield torch.index_select(images, 0, chosen)
