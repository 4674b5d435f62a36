"""`convolve`: the convolution operation on an image, with one output value worked out."""

from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from cnn_lightning.commands.convolve_options import (
    CHANNELS,
    DEFAULT_KERNEL,
    LARGEST_SIDE,
    read_options,
)
from cnn_lightning.console import say
from cnn_lightning.convolution import (
    AveragePooling,
    KnownConvolution,
    LearntConvolution,
    MaxPooling,
    Operation,
    TransposedConvolution,
    as_kernel,
    learn_kernel,
)
from cnn_lightning.errors import UserError
from cnn_lightning.figures import OperationExample, draw_learning, draw_operation, to_png
from cnn_lightning.figures.operation_example import LARGEST_WINDOW
from cnn_lightning.files import write_bytes
from cnn_lightning.images import read_image

# classes with straight and slanted edges
_SAMPLES = {"digit": "5", "shape": "triangle"}
_LARGEST_NUMBER = 1e6


def main(command: str, argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = read_options(command, argv)
    layer = _build(options)
    name, image = _read(options)
    path = options.output / f"{name}_{_label(options)}.png"
    _write(path, to_png(draw_operation(_work_out(options, layer, image))))
    if options.learn and isinstance(layer, KnownConvolution):
        path = path.with_name(f"{path.stem}_learnt.png")
        _write(path, to_png(_learn(_kernel_name(options), layer, image)))
    return 0


def parse_values(text: str) -> Tensor:
    """Read the numbers of a kernel: rows split by `/` or `;`, numbers by spaces or commas.

    Raises:
        UserError: A row is longer than another, or something is no number.

    Example:
        >>> parse_values("0 1 / -1 0.5")
        tensor([[ 0.0000,  1.0000],
                [-1.0000,  0.5000]])
    """
    rows = [row.replace(",", " ").split() for row in text.replace(";", "/").split("/")]
    try:
        numbers = [[float(number) for number in row] for row in rows]
    except ValueError as error:
        raise UserError(
            f"--values {text!r}: {error}", 'write it as in --values "0 1 0 / 1 -4 1 / 0 1 0"'
        ) from error
    return as_kernel(numbers)


def _build(options: Namespace) -> Operation:
    stride, padding = options.stride, options.padding
    layer: Operation
    if options.operation in ("max_pooling", "average_pooling"):
        pooling = MaxPooling if options.operation == "max_pooling" else AveragePooling
        layer = pooling(_or(options.window, 2), stride=stride, padding=padding)
    else:
        kernel = options.kernel or DEFAULT_KERNEL
        numbers = as_kernel(kernel) if options.values is None else parse_values(options.values)
        dilation = _or(options.dilation, 1)
        if options.operation == "convolution":
            layer = KnownConvolution(
                numbers,
                stride=_or(stride, 1),
                padding=padding,
                dilation=dilation,
                padding_mode=options.padding_mode or "zeros",
            )
        else:
            layer = TransposedConvolution(
                numbers,
                stride=_or(stride, 2),
                padding=padding,
                dilation=dilation,
                output_padding=_or(options.output_padding, 0),
            )
    if max(layer.window) > LARGEST_WINDOW:
        raise UserError(
            f"{layer.window[0]}×{layer.window[1]} numbers are too many to be read in a figure",
            f"use at most {LARGEST_WINDOW}×{LARGEST_WINDOW}",
        )
    if layer.kernel is not None and layer.kernel.abs().max() > _LARGEST_NUMBER:
        raise UserError(
            f"the kernel's {layer.kernel.abs().max():g} is too large for a figure",
            f"use numbers up to {_LARGEST_NUMBER:g}",
        )
    return layer


def _read(options: Namespace) -> tuple[str, Tensor]:
    """A name for the figures' files, and the image, C×H×W uint8."""
    if options.image is None:
        # importing the data modules takes seconds
        from cnn_lightning.data import MNISTDataModule, ShapesDataModule

        shapes = ShapesDataModule(num_images=20, num_test=10)
        data = shapes if options.sample == "shape" else MNISTDataModule(sample=True)
        images, labels = data.load("train")
        wanted = data.class_names.index(_SAMPLES[options.sample or "digit"])
        return options.sample or "digit", images[labels == wanted][0]
    image = read_image(options.image)
    if (image == image[:1]).all():
        image = image[:1]
    height, width = image.shape[1:]
    factor = options.size / max(height, width)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in (height, width)]
        scaled = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
        image = scaled[0].round().clamp(0, 255).to(torch.uint8)
        say(
            f"{options.image}: {height}×{width} pixels, scaled down to {size[0]}×{size[1]} so that "
            "they can be seen (--size)"
        )
    return Path(options.image).stem, image


def _work_out(options: Namespace, layer: Operation, image: Tensor) -> OperationExample:
    height, width = image.shape[1:]
    rows, columns = layer.output_size(height, width)
    largest = max(height + 2 * layer.padding, width + 2 * layer.padding, rows, columns)
    if largest > LARGEST_SIDE:
        raise UserError(
            f"a side of {largest} pixels is too long to be drawn",
            f"use less padding, stride or --size: at most {LARGEST_SIDE} pixels",
        )
    pixels = image.float()
    with torch.inference_mode():
        outputs = layer(pixels[None])[0]  # C×H'×W'
    if options.at is not None:
        layer.check_place(pixels[0], *options.at)
    channel, row, column = _place(options, outputs)
    worked_out = layer.work_out(pixels[channel], row, column)
    return OperationExample(
        operation=options.operation,
        title=_title(options, layer),
        image=image,
        channel=channel,
        padded=layer.pad(pixels[None, channel : channel + 1])[0, 0],
        kernel=layer.kernel,
        output=outputs[channel],
        place=(row, column),
        **worked_out._asdict(),
        formulas=(
            layer.formula,
            layer.size_formula(height, layer.window[0]),
            layer.size_formula(width, layer.window[1]),
        ),
    )


def _place(options: Namespace, outputs: Tensor) -> tuple[int, int, int]:
    """Channel, row and column of the output value to be worked out."""
    if options.channel and len(outputs) == 1:
        raise UserError(f"--channel {options.channel}: the image is grey", "leave it out")
    magnitudes = outputs.abs()
    if options.at is not None:
        row, column = options.at
        magnitudes = magnitudes[:, row : row + 1, column : column + 1]
    channel = int(magnitudes.amax((1, 2)).argmax())
    if options.channel:
        channel = CHANNELS.index(options.channel)
    if options.at is None:
        row, column = divmod(int(magnitudes[channel].argmax()), outputs.shape[2])
    return channel, row, column


def _learn(name: str, layer: KnownConvolution, image: Tensor) -> Figure:
    """The kernel learnt from the image and the output alone, beside the known one."""
    student = LearntConvolution(
        layer.window,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        padding_mode=layer.padding_mode,
    )
    images = image[None].float()
    losses = learn_kernel(student, images, layer(images))
    return draw_learning(name, layer.kernel, student.kernel, losses)


def _title(options: Namespace, layer: Operation) -> str:
    padding = f"padding {layer.padding}"
    if options.operation in ("max_pooling", "average_pooling"):
        name = options.operation.replace("_", " ").capitalize()
        size = layer.window[0]
        return f"{name}, window {size}×{size}, stride {layer.stride}, {padding}"
    name, last = "Convolution", ""
    if isinstance(layer, TransposedConvolution):
        name, last = "Transposed convolution", f", output padding {layer.output_padding}"
    elif isinstance(layer, KnownConvolution) and layer.padding:
        padding += f" ({layer.padding_mode})"
    return (
        f"{name} with {_kernel_name(options)}, stride {layer.stride}, {padding}, "
        f"dilation {layer.dilation}{last}"
    )


def _kernel_name(options: Namespace) -> str:
    return "a given kernel" if options.values is not None else options.kernel or DEFAULT_KERNEL


def _label(options: Namespace) -> str:
    """The operation, as part of a file's name."""
    if options.operation in ("max_pooling", "average_pooling"):
        return str(options.operation)
    kernel = "values" if options.values is not None else options.kernel or DEFAULT_KERNEL
    return kernel if options.operation == "convolution" else f"transposed_{kernel}"


def _or(number: int | None, default: int) -> int:
    return default if number is None else number


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path.parent} is not a folder", "give another --output") from error
    say(str(path))
