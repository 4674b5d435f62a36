"""Which learning rate a curve suggests, and that the finder's own smoothing is undone."""

import math

import pytest
import torch
from lightning.pytorch.tuner.lr_finder import _LRFinder

from cnn_lightning.analysis.learning_rates import read_range_test

GUESS = math.log(10)


def spread(low: float, high: float, steps: int) -> list[float]:
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


def descend(rates: list[float], middle: float, noise: float = 0.0) -> list[float]:
    """A fall from 2.3 to 0.3 that is steepest at `middle`, and a rise from a hundred times that."""
    draws = torch.randn(len(rates), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        1.3 - math.tanh(2 * math.log10(rate / middle)) + max(0.0, rate / middle / 100 - 1)
        + noise * draw
        for rate, draw in zip(rates, draws, strict=True)
    ]  # fmt: skip


def suggested(rates: list[float], losses: list[float]) -> float:
    place = read_range_test(rates, losses, GUESS).suggestion
    assert place is not None
    return rates[place]


@pytest.mark.parametrize("middle", [1e-4, 3e-3, 0.1])
@pytest.mark.parametrize("steps", [100, 300])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_rate_is_where_the_loss_falls_steepest(middle: float, steps: int, noise: float) -> None:
    rates = spread(1e-6, 10, steps)
    found = suggested(rates, descend(rates, middle, noise))
    assert middle / 3 < found < middle * 3


def test_lightnings_own_suggestion_is_misled_by_noise() -> None:
    rates = spread(1e-6, 10, 300)
    losses = descend(rates, 0.1, noise=0.1)
    finder = _LRFinder("exponential", 1e-6, 10, 300)
    finder.results = {"lr": rates, "loss": losses}
    own = finder.suggestion()
    assert own is not None
    assert own < 1e-4  # where the loss is flat
    assert 0.03 < suggested(rates, losses) < 0.3


def test_single_spikes_change_nothing() -> None:
    rates = spread(1e-6, 10, 300)
    losses = descend(rates, 0.01)
    calm = suggested(rates, losses)
    for place in (20, 90, 150, 175, 180):
        losses[place] = 50.0
    assert suggested(rates, losses) == pytest.approx(calm, rel=0.3)


def test_second_descent_after_the_loss_went_up_does_not_count() -> None:
    rates = spread(1e-6, 10, 300)
    losses = descend(rates, 1e-3)
    for place, rate in enumerate(rates):
        if rate > 0.02:  # up again, and then deeper and steeper than before
            losses[place] = 2.0 if rate < 0.1 else 0.01
    assert 3e-4 < suggested(rates, losses) < 3e-3


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 100,
        [2.3 + place / 50 for place in range(100)],
        [2.3 - place / 500 for place in range(100)],
    ],
    ids=["flat", "rising", "falling by less than a tenth"],
)
def test_nothing_is_suggested_where_the_loss_does_not_fall(losses: list[float]) -> None:
    assert read_range_test(spread(1e-6, 10, 100), losses, GUESS).suggestion is None


def test_noise_alone_suggests_nothing() -> None:
    rates = spread(1e-6, 10, 100)
    draws = torch.randn(100, generator=torch.Generator().manual_seed(1)).tolist()
    assert read_range_test(rates, [2.3 + 0.1 * draw for draw in draws], GUESS).suggestion is None


def test_loss_that_falls_to_that_of_a_guess_has_learnt_nothing() -> None:
    rates = spread(1e-6, 10, 100)
    losses = [2.3 + 0.7 * math.exp(-place / 10) for place in range(100)]
    assert read_range_test(rates, losses, GUESS).suggestion is None
    assert read_range_test(rates, losses, guess=3.0).suggestion is not None


def test_what_follows_a_loss_that_is_not_finite_is_left_out() -> None:
    rates = spread(1e-6, 10, 100)
    losses = descend(rates, 1e-3)
    losses[80:] = [math.nan] * 20
    found = read_range_test(rates, losses, GUESS)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) == 80
    with pytest.raises(ValueError, match="3 finite losses are too few"):
        read_range_test(rates, [*losses[:3], math.inf, *losses[4:]], GUESS)
