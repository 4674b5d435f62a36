"""How far a share could be off by chance."""

import torch
from torch import Tensor

# two-sided 95 % of the normal distribution
_Z = 1.959963984540054


def wilson_interval(successes: Tensor, trials: Tensor) -> tuple[Tensor, Tensor]:
    """The 95 % score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Unlike mean ± 1.96 standard errors it stays within 0..1 and has a width at 0 and 1.

    Args:
        successes: Any shape, integer, each in 0..trials.
        trials: The same shape, integer.

    Returns:
        Lower and upper ends, float64 in 0..1; nan where there are no trials.

    Example:
        >>> low, high = wilson_interval(torch.tensor([8]), torch.tensor([10]))
        >>> f"{low.item():.4f} {high.item():.4f}"
        '0.4902 0.9433'
    """
    trials = trials.double()
    share = successes / trials
    centre = share + _Z**2 / (2 * trials)
    half = _Z * torch.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    scale = 1 + _Z**2 / trials
    return ((centre - half) / scale).clamp(0, 1), ((centre + half) / scale).clamp(0, 1)
