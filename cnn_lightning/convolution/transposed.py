"""The transposed convolution: small images to large ones."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.convolution.base import Operation, WorkedOut
from cnn_lightning.convolution.kernels import as_kernel
from cnn_lightning.convolution.sizes import transposed_size
from cnn_lightning.errors import UserError


class TransposedConvolution(Operation):
    """Every input pixel stamps the kernel, times its value, onto the output; stamps add up.

    Args:
        kernel: A name of `KERNELS`, or a matrix of numbers.
        stride: Pixels in the output from one stamp to the next.
        padding: Pixels cut off on each side of the output.
        dilation: Pixels in the output from one number of the kernel to the next.
        output_padding: Pixels added below and to the right of the output; less than the larger of
            stride and dilation.

    Raises:
        UserError: There is no such kernel, or a number is too small or too large.

    Example:
        >>> import torch
        >>> TransposedConvolution([[1, 2]], stride=2)(torch.tensor([[[[3.0, 4.0]]]]))
        tensor([[[[3., 6., 4., 8.]]]])
    """

    formula = "(input - 1)·stride - 2·padding + dilation·(kernel - 1) + output padding + 1"
    layer: nn.ConvTranspose2d

    def __init__(
        self,
        kernel: str | Tensor | Sequence[Sequence[float]],
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        output_padding: int = 0,
    ) -> None:
        numbers = as_kernel(kernel)
        size = (numbers.shape[0], numbers.shape[1])
        super().__init__(size, stride=stride, padding=padding, dilation=dilation)
        if not 0 <= output_padding < max(stride, dilation):
            raise UserError(
                f"output_padding {output_padding} is not below the larger of stride {stride} and "
                f"dilation {dilation}",
                f"use 0 to {max(stride, dilation) - 1}",
            )
        self.output_padding = output_padding
        self.layer = nn.ConvTranspose2d(
            1, 1, size, stride, padding, output_padding, bias=False, dilation=dilation
        )
        self.layer.weight = nn.Parameter(numbers[None, None], requires_grad=False)

    @property
    @override
    def kernel(self) -> Tensor:
        return self.layer.weight.detach()[0, 0]

    @override
    def output_side(self, side: int, size: int) -> int:
        return transposed_size(
            side,
            size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            output_padding=self.output_padding,
        )

    @override
    def size_formula(self, side: int, size: int) -> str:
        terms = (
            f"({side} - 1)·{self.stride} - 2·{self.padding} + {self.dilation}·({size} - 1) + "
            f"{self.output_padding} + 1"
        )
        return f"{terms} = {self.output_side(side, size)}"

    @override
    def pad(self, images: Tensor) -> Tensor:
        return images  # the padding is in the output

    @override
    def work_out(self, channel: Tensor, row: int, column: int) -> WorkedOut:
        """Add up what the stamps contribute to one output value, without `layer`.

        Raises:
            UserError: As for every operation.
        """
        self.check_place(channel, row, column)
        rows, kernel_rows = self._stamps(row, channel.shape[0], self.window[0])
        columns, kernel_columns = self._stamps(column, channel.shape[1], self.window[1])
        values = channel[rows][:, columns].double()
        weights = self.kernel[kernel_rows][:, kernel_columns].double()
        return WorkedOut(rows, columns, values, weights, float((values * weights).sum()))

    def _stamps(self, place: int, side: int, size: int) -> tuple[list[int], list[int]]:
        """Rows of the input whose stamps reach an output row, and with which kernel row."""
        steps = [
            (source, step)
            for source in range(side)
            for step in range(size)
            if source * self.stride + step * self.dilation - self.padding == place
        ]
        return [source for source, _ in steps], [step for _, step in steps]
