import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from cnn_lightning.analysis.calibration import (
    ReliabilityBins,
    expected_calibration_error,
    reliability_bins,
)
from cnn_lightning.classifiers.calibration import CalibrationError


def draw(num_images: int, num_classes: int, sharpness: float = 2) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(num_images)
    logits = sharpness * torch.randn(num_images, num_classes, generator=draws)
    return logits.softmax(1), torch.randint(num_classes, (num_images,), generator=draws)


@pytest.mark.parametrize("num_bins", [1, 2, 15])
@pytest.mark.parametrize(("num_images", "num_classes"), [(1, 2), (300, 2), (300, 10)])
def test_bins_and_error_are_those_of_a_hand_written_loop(
    num_images: int, num_classes: int, num_bins: int
) -> None:
    probabilities, labels = draw(num_images, num_classes)
    sums = [[0, 0, 0.0] for _ in range(num_bins)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        place = next(b for b in range(num_bins) if confidence <= (b + 1) / num_bins)
        sums[place][0] += 1
        sums[place][1] += row.index(confidence) == label
        sums[place][2] += confidence
    bins = reliability_bins(probabilities, labels, num_bins)
    assert bins.counts.tolist() == [count for count, _, _ in sums]
    assert bins.correct.tolist() == [correct for _, correct, _ in sums]
    assert bins.confidence.tolist() == pytest.approx([total for _, _, total in sums], abs=1e-9)
    error = sum(
        count / num_images * abs(correct / count - total / count)
        for count, correct, total in sums
        if count
    )
    assert float(expected_calibration_error(bins)) == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("sharpness", [0.5, 2, 5])
def test_error_is_that_of_torchmetrics(sharpness: float) -> None:
    probabilities, labels = draw(2000, 10, sharpness)
    expected = multiclass_calibration_error(probabilities, labels, num_classes=10, n_bins=15)
    found = expected_calibration_error(reliability_bins(probabilities, labels))
    assert float(found) == pytest.approx(float(expected), abs=1e-6)  # torchmetrics' is float32


def test_certain_images_share_the_last_bin_unlike_those_of_torchmetrics() -> None:
    probabilities = torch.tensor([[1.0, 0.0], [0.96, 0.04]])
    labels = torch.tensor([1, 0])  # accuracy 1/2 of a mean confidence of 0.98
    found = expected_calibration_error(reliability_bins(probabilities, labels))
    assert float(found) == pytest.approx(0.48, abs=1e-6)
    other = multiclass_calibration_error(probabilities, labels, num_classes=2, n_bins=15)
    assert float(other) == pytest.approx((1 + 0.04) / 2, abs=1e-6)


def test_a_calibrated_classifier_has_no_error_and_a_boaster_has() -> None:
    probabilities = torch.tensor([[0.75, 0.25]]).repeat(4, 1)
    honest = reliability_bins(probabilities, torch.tensor([0, 0, 0, 1]))
    assert float(expected_calibration_error(honest)) == 0
    boaster = reliability_bins(probabilities, torch.tensor([1, 1, 1, 1]))
    assert float(expected_calibration_error(boaster)) == 0.75


def test_the_metric_of_batches_is_that_of_all_images_and_forgets_when_reset() -> None:
    probabilities, labels = draw(500, 10)
    metric = CalibrationError()
    for _ in range(2):
        for chosen in torch.arange(500).split(77):
            metric.update(probabilities[chosen], labels[chosen])
        bins = ReliabilityBins(metric.counts, metric.correct, metric.confidence)
        whole = reliability_bins(probabilities, labels)
        assert torch.equal(bins.counts, whole.counts)
        assert torch.equal(bins.correct, whole.correct)
        assert float(metric.compute()) == pytest.approx(float(expected_calibration_error(whole)))
        metric.reset()


@pytest.mark.parametrize(
    ("probabilities", "labels", "num_bins"),
    [
        (torch.ones(3), torch.ones(3), 15),
        (torch.ones(3, 2), torch.ones(2), 15),
        (torch.ones(3, 2), torch.ones(3), 0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    probabilities: Tensor, labels: Tensor, num_bins: int
) -> None:
    with pytest.raises(ValueError, match="must be N×K and N"):
        reliability_bins(probabilities, labels.long(), num_bins)
