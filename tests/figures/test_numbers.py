import math

import pytest

from cnn_lightning.figures.numbers import is_rounded, spell


@pytest.mark.parametrize(
    ("value", "digits", "text", "rounded"),
    [
        (0.0, 6, "0", False),
        (-0.0, 6, "0", False),
        (-1020.0, 3, "-1020", False),
        (1 / 9, 3, "1/9", False),
        (-0.0625, 3, "-1/16", False),
        (0.123456789, 3, "0.123", True),
        (247.125, 6, "247.125", False),
        (247.125, 3, "247", True),
        (9.9999, 3, "10", True),
        (123456.7, 6, "123457", True),
        (1e6, 6, "1e6", False),
        (-2.5e12, 6, "-2.5e12", False),
        (3.6e-7, 2, "3.6e-7", False),
        (-math.inf, 6, "-∞", False),
    ],
)
def test_numbers_are_short_and_rounding_is_known(
    value: float, digits: int, text: str, rounded: bool
) -> None:
    assert spell(value, digits=digits) == text.replace("-", "\N{MINUS SIGN}")
    assert is_rounded(value, digits=digits) == rounded
