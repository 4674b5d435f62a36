"""Convolution with a known kernel or one to be learnt, and pooling."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.convolution.base import Operation
from cnn_lightning.convolution.kernels import as_kernel
from cnn_lightning.convolution.sizes import convolution_size, pooling_size
from cnn_lightning.errors import UserError
from cnn_lightning.randomness import generator

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class KnownConvolution(Operation):
    """A convolution whose kernel is given; the kernel is not flipped.

    Args:
        kernel: A name of `KERNELS`, or a matrix of numbers.
        stride: Pixels from one place of the kernel to the next.
        padding: Pixels added on each side.
        dilation: Pixels from one pixel under the kernel to the next.
        padding_mode: What is added: `zeros`, the image mirrored at its border pixels (`reflect`),
            the border pixels again (`replicate`), or the pixels of the opposite side (`circular`).

    Raises:
        UserError: There is no such kernel, or a number is too small.

    Example:
        >>> image = torch.tensor([[0.0, 0, 9], [0, 0, 9], [0, 0, 9]])
        >>> KnownConvolution("sobel_x")(image[None, None])
        tensor([[[[36.]]]])
    """

    formula = "⌊(input + 2·padding - dilation·(kernel - 1) - 1) / stride⌋ + 1"
    layer: nn.Conv2d

    def __init__(
        self,
        kernel: str | Tensor | Sequence[Sequence[float]],
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        numbers = as_kernel(kernel)
        size = (numbers.shape[0], numbers.shape[1])
        super().__init__(size, stride=stride, padding=padding, dilation=dilation)
        self.padding_mode = padding_mode
        self.layer = nn.Conv2d(
            1, 1, size, stride, padding, dilation, bias=False, padding_mode=padding_mode
        )
        self.layer.weight = nn.Parameter(numbers[None, None], requires_grad=False)

    @property
    @override
    def kernel(self) -> Tensor:
        return self.layer.weight.detach()[0, 0]

    @override
    def output_side(self, side: int, size: int) -> int:
        # a mirror leaves the border pixel out, and torch goes round the image once at most
        most = {"reflect": side - 1, "circular": side}.get(self.padding_mode, self.padding)
        if self.padding > most:
            raise UserError(
                f"{self.padding_mode} padding of {self.padding} is too large for {side} pixels",
                f"use at most {most}, or another padding mode",
            )
        return convolution_size(
            side, size, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    @override
    def size_formula(self, side: int, size: int) -> str:
        dilated = f"{self.dilation}·({size} - 1)"
        numerator = f"{side} + 2·{self.padding} - {dilated} - 1"
        return f"⌊({numerator}) / {self.stride}⌋ + 1 = {self.output_side(side, size)}"

    @override
    def pad(self, images: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(images, (self.padding,) * 4, mode=mode)

    @override
    def combine(self, values: Tensor) -> tuple[Tensor, float]:
        weights = self.kernel.double()
        return weights, float((weights * values).sum())


class LearntConvolution(KnownConvolution):
    """A convolution whose kernel is small random numbers, to be learnt: see `learn_kernel`.

    Args:
        size: Height and width of the kernel.
        stride: As for `KnownConvolution`.
        padding: Likewise.
        dilation: Likewise.
        padding_mode: Likewise.

    Raises:
        UserError: A number is too small.

    Example:
        >>> images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> LearntConvolution((3, 3), padding=1)(images).shape
        torch.Size([20, 1, 8, 8])
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__(
            0.1 * torch.randn(size, generator=generator("learnt convolution")),
            stride=stride,
            padding=padding,
            dilation=dilation,
            padding_mode=padding_mode,
        )
        self.requires_grad_()


class _Pooling(Operation):
    """A window whose pixels become one.

    Args:
        size: Height and width of the window.
        stride: Pixels from one place of the window to the next; `None` takes `size`, so that
            windows touch.
        padding: Pixels added on each side, at most half of `size`.

    Raises:
        UserError: A number is too small, or the padding too large.
    """

    formula = "⌊(input + 2·padding - window) / stride⌋ + 1"

    def __init__(self, size: int = 2, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__((size, size), stride=size if stride is None else stride, padding=padding)
        if padding > size // 2:
            # else a window could lie in the padding alone
            raise UserError(
                f"padding {padding} is more than half of the window of {size}",
                f"use at most {size // 2}",
            )

    @override
    def output_side(self, side: int, size: int) -> int:
        return pooling_size(side, size, stride=self.stride, padding=self.padding)

    @override
    def size_formula(self, side: int, size: int) -> str:
        numerator = f"{side} + 2·{self.padding} - {size}"
        return f"⌊({numerator}) / {self.stride}⌋ + 1 = {self.output_side(side, size)}"


class MaxPooling(_Pooling):
    """The largest pixel of each window; the padding is minus infinity.

    Args:
        size: Height and width of the window.
        stride: Pixels from one place of the window to the next; `None` takes `size`, so that
            windows touch.
        padding: Pixels added on each side, at most half of `size`.

    Raises:
        UserError: A number is too small, or the padding too large.

    Example:
        >>> MaxPooling(2)(torch.tensor([[[[1.0, 2, 0, 0], [3, 4, 0, 5]]]]))
        tensor([[[[4., 5.]]]])
    """

    def __init__(self, size: int = 2, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__(size, stride=stride, padding=padding)
        self.layer = nn.MaxPool2d(size, stride, padding)

    @override
    def pad(self, images: Tensor) -> Tensor:
        return F.pad(images, (self.padding,) * 4, value=-torch.inf)

    @override
    def combine(self, values: Tensor) -> tuple[None, float]:
        return None, float(values.max())


class AveragePooling(_Pooling):
    """The mean of each window; the padding is zeros, and counted.

    Args:
        size: Height and width of the window.
        stride: Pixels from one place of the window to the next; `None` takes `size`, so that
            windows touch.
        padding: Pixels added on each side, at most half of `size`.

    Raises:
        UserError: A number is too small, or the padding too large.

    Example:
        >>> AveragePooling(2)(torch.tensor([[[[1.0, 2, 0, 0], [3, 4, 0, 6]]]]))
        tensor([[[[2.5000, 1.5000]]]])
    """

    def __init__(self, size: int = 2, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__(size, stride=stride, padding=padding)
        self.layer = nn.AvgPool2d(size, stride, padding)

    @override
    def pad(self, images: Tensor) -> Tensor:
        return F.pad(images, (self.padding,) * 4)

    @override
    def combine(self, values: Tensor) -> tuple[None, float]:
        return None, float(values.mean())
