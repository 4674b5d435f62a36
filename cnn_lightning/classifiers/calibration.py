"""The calibration error as a metric: sums over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from cnn_lightning.analysis.calibration import (
    NUM_BINS,
    ReliabilityBins,
    expected_calibration_error,
    reliability_bins,
)


class CalibrationError(Metric):
    """Expected calibration error with 15 bins; see `expected_calibration_error`.

    torchmetrics has one that keeps a number for every image; this one keeps the sums of the bins.
    """

    full_state_update = False
    higher_is_better = False
    counts: Tensor
    correct: Tensor
    confidence: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, dtype in (
            ("counts", torch.int64),
            ("correct", torch.int64),
            ("confidence", torch.float64),
        ):
            self.add_state(name, torch.zeros(NUM_BINS, dtype=dtype), dist_reduce_fx="sum")

    @override
    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        bins = reliability_bins(probabilities, labels)
        self.counts += bins.counts
        self.correct += bins.correct
        self.confidence += bins.confidence

    @override
    def compute(self) -> Tensor:
        bins = ReliabilityBins(self.counts, self.correct, self.confidence)
        return expected_calibration_error(bins).float()
