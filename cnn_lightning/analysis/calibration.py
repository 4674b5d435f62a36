"""How far a classifier's confidence can be trusted: bins of confidence, and one number."""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_BINS = 15  # Guo et al. 2017 (arXiv:1706.04599), tables 1 and S2


class ReliabilityBins(NamedTuple):
    """Sums over the images of each of B bins of confidence; those of several parts are added.

    Attributes:
        counts: Images, B int64.
        correct: Images classified correctly, B int64.
        confidence: Sum of their confidences, B float64.
    """

    counts: Tensor
    correct: Tensor
    confidence: Tensor


def reliability_bins(
    probabilities: Tensor, labels: Tensor, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sort images into bins of equal width by their confidence, the probability predicted.

    Bin b of B holds the confidences in (b/B, (b+1)/B], as in Guo et al. 2017 (arXiv:1706.04599,
    2). torchmetrics' bins are open above instead, and a confidence of exactly 1, which rounding
    makes frequent, gets a bin of its own.

    Args:
        probabilities: N×K float, rows sum to 1.
        labels: N int64 in 0..K-1.
        num_bins: Bins, at least 1.

    Returns:
        Sums on the device of `probabilities`.

    Raises:
        ValueError: The shapes do not fit, or there is no bin.

    Example:
        >>> bins = reliability_bins(torch.tensor([[0.7, 0.3], [1.0, 0.0]]), torch.tensor([0, 1]), 2)
        >>> bins.counts, bins.correct
        (tensor([0, 2]), tensor([0, 1]))
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or num_bins < 1:
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)} must be "
            f"N×K and N, and {num_bins} bins at least 1"
        )
    confidences, predicted = probabilities.max(1)
    edges = torch.linspace(0, 1, num_bins + 1, dtype=confidences.dtype, device=confidences.device)
    places = torch.bucketize(confidences, edges[1:-1])  # N in 0..B-1
    # a sum over rows, since adding by index is not deterministic on a GPU
    inside = places[:, None] == torch.arange(num_bins, device=places.device)  # N×B
    return ReliabilityBins(
        inside.sum(0),
        (inside & (predicted == labels)[:, None]).sum(0),
        (inside * confidences.double()[:, None]).sum(0),
    )


def expected_calibration_error(bins: ReliabilityBins) -> Tensor:
    """Mean distance between accuracy and mean confidence of the bins, weighted by their images.

    Equation 3 of Guo et al. 2017 (arXiv:1706.04599), the counts cancelled.

    Returns:
        A float64 scalar in 0..1; nan if there are no images.
    """
    return (bins.correct - bins.confidence).abs().sum() / bins.counts.sum()
