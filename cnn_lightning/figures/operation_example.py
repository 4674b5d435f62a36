"""An output value of an operation, with all that it comes from, and its arithmetic in words."""

import itertools
import textwrap
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cnn_lightning.figures.numbers import MINUS, is_rounded, spell

LARGEST_WINDOW = 7
OperationName = Literal["convolution", "max_pooling", "average_pooling", "transposed"]
# of a line of arithmetic
_LETTERS = 130


@dataclass(frozen=True, kw_only=True)
class OperationExample:
    """What the figure of an operation shows.

    Args:
        operation: Which it is.
        title: The operation and its settings.
        image: C×H×W uint8, C 1 (grey) or 3 (colour).
        channel: The channel that is worked on, from 0.
        padded: That channel as the window sees it, (H+2P)×(W+2P) float; -inf where max pooling
            pads.
        kernel: The kernel, a matrix of at most 7×7; `None` for pooling.
        output: What becomes of the channel, H'×W' float.
        place: Row and column of the output value that is worked out.
        rows: The R input rows that it comes from; those outside 0..H-1 are padding.
        columns: The L input columns, likewise.
        values: R×L float, the pixels there.
        weights: R×L float, what each is multiplied with; `None` for pooling.
        result: The output value.
        formulas: How a side of the output comes about: in words, then height and width, with the
            numbers put in.
    """

    operation: OperationName
    title: str
    image: Tensor
    channel: int
    padded: Tensor
    kernel: Tensor | None
    output: Tensor
    place: tuple[int, int]
    rows: list[int]
    columns: list[int]
    values: Tensor
    weights: Tensor | None
    result: float
    formulas: tuple[str, str, str]

    @property
    def padding(self) -> int:
        """Pixels added on each side of the input."""
        return (self.padded.shape[0] - self.image.shape[1]) // 2

    @property
    def channel_name(self) -> str:
        """The channel that is worked on, in words."""
        return "grey" if len(self.image) == 1 else ("red", "green", "blue")[self.channel]


def arithmetic(example: OperationExample) -> list[str]:
    """The output value as a sum, a mean or a maximum of numbers, in lines that fit the figure."""
    numbers = example.values.flatten().tolist()
    values = [spell(number) for number in numbers]
    weights = [] if example.weights is None else example.weights.flatten().tolist()
    is_exact = not any(map(is_rounded, (*numbers, *weights, example.result)))
    result = f"{'=' if is_exact else '≈'}\xa0{spell(example.result)}"
    if not values:
        return ["no input pixel reaches this place: 0"]
    if example.operation == "max_pooling":
        text = f"the largest of {', '.join(values)} {result}"
    elif example.weights is None:
        text = f"({' + '.join(map(_bracket, values))}) / {len(values)} {result}"
    else:
        pairs = zip(values, map(spell, weights), strict=True)
        # spaces that a line does not break at
        products = [f"{_bracket(value)}\xa0×\xa0{_bracket(weight)}" for value, weight in pairs]
        text = f"{' + '.join(products)} {result}"
    return textwrap.wrap(text.replace("+ ", "+\xa0"), _LETTERS)


def _bracket(number: str) -> str:
    return f"({number})" if number.startswith(MINUS) else number


def span(name: str, places: list[int]) -> str:
    """Rows or columns in words.

    Example:
        >>> span("rows", [0, 1, 2]), span("columns", [5])
        ('rows 0 to 2', 'column 5')
    """
    if not places:
        return f"no {name}"
    texts = [str(place).replace("-", MINUS) for place in places]
    if len(places) == 1:
        return f"{name.removesuffix('s')} {texts[0]}"
    steps = {b - a for a, b in itertools.pairwise(places)}
    if steps == {1}:
        return f"{name} {texts[0]} to {texts[-1]}"
    return f"{name} {', '.join(texts)}"
