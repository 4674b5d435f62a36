"""How large an output is: the formulas of torch's documentation, for height and width alike.

They stand under Shape on the pages of `torch.nn.Conv2d`, `MaxPool2d`, `AvgPool2d` and
`ConvTranspose2d` (https://docs.pytorch.org/docs/stable/nn.html).
"""

from cnn_lightning.errors import UserError


def convolution_size(
    side: int, size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Height or width of a convolution's output.

    Args:
        side: Height or width of the input, at least 1.
        size: Height or width of the kernel, at least 1.
        stride: Pixels from one place of the kernel to the next, at least 1.
        padding: Pixels added on each side.
        dilation: Pixels from one pixel under the kernel to the next, at least 1.

    Raises:
        UserError: The kernel is larger than the padded input.

    Example:
        >>> convolution_size(28, 3, stride=2, padding=1)
        14
    """
    extent, padded = dilation * (size - 1) + 1, side + 2 * padding
    if extent > padded:
        dilated = f", spread over {extent} by dilation {dilation}," if dilation > 1 else ""
        raise UserError(
            f"a window of {size}{dilated} does not fit {padded} pixels"
            + (f" ({side} and twice the padding of {padding})" if padding else ""),
            "use a smaller window or dilation, a larger image or more padding",
        )
    return (padded - extent) // stride + 1


def pooling_size(side: int, size: int, *, stride: int, padding: int = 0) -> int:
    """Height or width of a pooling's output; as `convolution_size`, without dilation.

    Example:
        >>> pooling_size(5, 2, stride=2)  # the fifth pixel is left over
        2
    """
    return convolution_size(side, size, stride=stride, padding=padding)


def transposed_size(
    side: int,
    size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
) -> int:
    """Height or width of a transposed convolution's output.

    Args:
        side: Height or width of the input, at least 1.
        size: Height or width of the kernel, at least 1.
        stride: Pixels in the output from one input pixel's stamp to the next, at least 1.
        padding: Pixels cut off on each side of the output.
        dilation: Pixels in the output from one number of the kernel to the next, at least 1.
        output_padding: Pixels added on one side of the output.

    Raises:
        UserError: Nothing is left of the output.

    Example:
        >>> transposed_size(14, 3, stride=2, padding=1, output_padding=1)
        28
    """
    output = (side - 1) * stride - 2 * padding + dilation * (size - 1) + output_padding + 1
    if output < 1:
        raise UserError(
            f"a padding of {padding} cuts the whole output of {output + 2 * padding} off",
            "use less padding",
        )
    return output
