"""What a run of steps with ever higher learning rates says of the rate to train with.

The range test of Smith 2017 (arXiv:1506.01186, 3.3).
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# below the loss at the start and that of a guess; other curves are steepest where noise has it
LEAST_FALL = 0.1


class RangeTest(NamedTuple):
    """Losses by learning rate.

    Attributes:
        rates: Learning rate of each step, ascending, as far as losses are finite.
        losses: Loss of each step.
        smoothed: Medians of the losses around each step, which single spikes leave alone.
        suggestion: Place of the suggested rate, `None` if the loss did not fall by a tenth below
            its start and below that of a guess.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: int | None


def read_range_test(rates: Sequence[float], losses: Sequence[float], guess: float) -> RangeTest:
    """Find where the smoothed loss falls steepest against the logarithm of the rate.

    Only the first descent counts: it ends at the lowest loss before one that has lost half of what
    was gained. Against the rate itself, as Lightning's own suggestion has it, the noise at the
    smallest rates would win, since they lie closest together.

    Args:
        rates: Learning rate of each step, ascending, above 0.
        losses: Loss of each step; what follows the first that is not finite is left out.
        guess: Loss of who finds all classes alike probable: log K for cross-entropy.

    Raises:
        ValueError: There are fewer than ten finite losses.

    Example:
        >>> rates = [10 ** (place / 10 - 5) for place in range(50)]
        >>> losses = [2 - math.tanh(2 * (math.log10(rate) + 3)) for rate in rates]
        >>> round(rates[read_range_test(rates, losses, math.log(10)).suggestion], 6)
        0.001
    """
    length = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    if length < 10:
        raise ValueError(f"{length} finite losses are too few, at least 10 are needed")
    rates, losses = list(rates[:length]), list(losses[:length])
    half = max(3, length // 40)
    smoothed = [_median_around(losses, place, half) for place in range(length)]
    least = (1 - LEAST_FALL) * min(smoothed[0], guess)
    lowest = _end_of_descent(smoothed, least)
    if smoothed[lowest] > least:
        return RangeTest(rates, losses, smoothed, None)
    suggestion = min(
        range(lowest + 1), key=lambda place: _slope(rates, smoothed, place, half, length - 1)
    )
    return RangeTest(rates, losses, smoothed, suggestion)


def _median_around(values: Sequence[float], place: int, half: int) -> float:
    """The median of the values from `half` before to `half` behind; at the ends there are fewer."""
    return statistics.median(values[max(place - half, 0) : place + half + 1])


def _end_of_descent(values: Sequence[float], least: float) -> int:
    """The place of the lowest value before one that has lost half of what was gained.

    What never fell to `least` has gained nothing yet.
    """
    lowest = 0
    for place, value in enumerate(values):
        gained = values[0] - values[lowest]
        if values[lowest] <= least and value > values[lowest] + gained / 2:
            break
        if value < values[lowest]:
            lowest = place
    return lowest


def _slope(
    rates: Sequence[float], losses: Sequence[float], place: int, half: int, last: int
) -> float:
    first, last = max(place - half, 0), min(place + half, last)
    return (losses[last] - losses[first]) / math.log(rates[last] / rates[first])
