import pytest
import torch
from scipy.stats import binomtest

from cnn_lightning.figures.intervals import wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 50), (37, 50), (999, 1000)])
def test_interval_is_that_of_scipy(successes: int, trials: int) -> None:
    low, high = wilson_interval(torch.tensor([successes]), torch.tensor([trials]))
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert low.item() == pytest.approx(expected.low, abs=1e-12)
    assert high.item() == pytest.approx(expected.high, abs=1e-12)


def test_nothing_tried_is_nothing_known() -> None:
    low, high = wilson_interval(torch.tensor([0]), torch.tensor([0]))
    assert low.isnan().all()
    assert high.isnan().all()
