"""What the operations have in common: a window, and the working out of one output value."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from cnn_lightning.errors import UserError


class WorkedOut(NamedTuple):
    """How one output value comes about: from R×L input pixels.

    Args:
        rows: R rows of the input, from 0; those outside the input are padding.
        columns: L columns of the input, likewise.
        values: R×L float64, what the pixels are worth, in the padding too.
        weights: R×L float64, the number of the kernel for each pixel; `None` for pooling.
        result: The output value.
    """

    rows: list[int]
    columns: list[int]
    values: Tensor
    weights: Tensor | None
    result: float


class Operation(nn.Module, ABC):
    """A window that slides over each channel of an image on its own.

    A subclass sets `layer`, a layer of torch for one channel, and says how large its output is;
    `formula` says so in words.

    Args:
        window: Height and width of the window, before dilation.
        stride: Pixels from one place of the window to the next.
        padding: Pixels on each side.
        dilation: Pixels from one pixel under the window to the next.

    Raises:
        UserError: A number is too small.
    """

    formula: str
    layer: nn.Module

    def __init__(
        self, window: tuple[int, int], *, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> None:
        super().__init__()
        named = {"window": min(window), "stride": stride, "dilation": dilation}
        small = [f"{name} {number}" for name, number in named.items() if number < 1]
        small += [f"padding {padding}"] if padding < 0 else []
        if small:
            raise UserError(
                f"{', '.join(small)}: too small", "use at least 1, and for padding at least 0"
            )
        self.window = window
        self.stride, self.padding, self.dilation = stride, padding, dilation

    @property
    def kernel(self) -> Tensor | None:
        """The numbers of the kernel, a matrix; `None` for what has none."""
        return None

    def forward(self, images: Tensor) -> Tensor:
        """Apply the operation.

        Args:
            images: N×C×H×W float.

        Returns:
            N×C×H'×W' float; H' and W' are `output_size(H, W)`.

        Raises:
            UserError: The settings are impossible for images of this size.
        """
        size = self.output_size(*images.shape[2:])
        channels = images.reshape(-1, 1, *images.shape[2:])  # (N·C)×1×H×W
        output: Tensor = self.layer(channels)
        return output.reshape(*images.shape[:2], *size)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for an input of H×W; raises as `forward`."""
        return self.output_side(height, self.window[0]), self.output_side(width, self.window[1])

    @abstractmethod
    def output_side(self, side: int, size: int) -> int:
        """Height of the output for those of input and window; or its width, for theirs."""

    @abstractmethod
    def size_formula(self, side: int, size: int) -> str:
        """`formula` with the numbers put in, and what `output_side` comes to."""

    @abstractmethod
    def pad(self, images: Tensor) -> Tensor:
        """What the window slides over: N×C×H×W float to N×C×(H+2P)×(W+2P)."""

    def combine(self, values: Tensor) -> tuple[Tensor | None, float]:
        """Weights and result of the pixels under the window, a float64 matrix."""
        raise NotImplementedError

    def work_out(self, channel: Tensor, row: int, column: int) -> WorkedOut:
        """Compute one output value from its pixels, without `layer`.

        Args:
            channel: One channel of an image, H×W float.
            row: Row of the output value, from 0.
            column: Column of the output value, from 0.

        Raises:
            UserError: The place is outside the output, or as `forward`.
        """
        self.check_place(channel, row, column)
        rows, columns = (
            [place * self.stride + self.dilation * step for step in range(size)]
            for place, size in zip((row, column), self.window, strict=True)
        )
        values = self.pad(channel[None, None])[0, 0, rows][:, columns].double()
        weights, result = self.combine(values)
        return WorkedOut(
            [place - self.padding for place in rows],
            [place - self.padding for place in columns],
            values,
            weights,
            result,
        )

    def check_place(self, channel: Tensor, row: int, column: int) -> None:
        """Refuse a row and column that the output does not have."""
        height, width = self.output_size(*channel.shape)
        if not (0 <= row < height and 0 <= column < width):
            raise UserError(
                f"row {row}, column {column} is outside the output of {height}×{width}",
                f"rows are 0 to {height - 1}, columns 0 to {width - 1}",
            )
