"""The options of `convolve`."""

from argparse import Namespace
from pathlib import Path
from typing import get_args

from cnn_lightning.commands.parser import Parser
from cnn_lightning.convolution import KERNELS, PaddingMode
from cnn_lightning.errors import UserError
from cnn_lightning.figures.operation_example import OperationName

DEFAULT_KERNEL = "sobel_x"
CHANNELS = ("red", "green", "blue")
LARGEST_SIDE = 512  # of what is drawn, in pixels
# beyond these no pixel of an image is seen any more
_SIZES = (8, 128)
# what only some operations have
_OWN_OPTIONS = {
    "kernel": ("convolution", "transposed"),
    "values": ("convolution", "transposed"),
    "dilation": ("convolution", "transposed"),
    "padding_mode": ("convolution",),
    "learn": ("convolution",),
    "window": ("max_pooling", "average_pooling"),
    "output_padding": ("transposed",),
}


def read_options(command: str, argv: list[str]) -> Namespace:
    """Read a command line.

    Raises:
        UserError: An option is unknown, out of range or has no meaning for the operation.
    """
    options = _parser(command).parse_args(argv)
    _check(options)
    return options


def _parser(command: str) -> Parser:
    parser = Parser(command, "Show what an operation does to an image, one output value by hand.")
    add = parser.add_argument
    add("image", nargs="?", metavar="IMAGE", help="an image file (default: a sample)")
    add("--sample", choices=("digit", "shape"), help="which sample (default: digit)")
    add(
        "--operation",
        choices=get_args(OperationName),
        default="convolution",
        help="(default: convolution)",
    )
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument(
        "--kernel", metavar="NAME", help=f"{', '.join(KERNELS)} (default: {DEFAULT_KERNEL})"
    )
    kernel.add_argument(
        "--values",
        metavar="NUMBERS",
        help='a kernel of your own, rows split by / or ;, as "0 1 0 / 1 -4 1 / 0 1 0"',
    )
    add("--window", type=int, help="side of the window of a pooling (default: 2)")
    add("--stride", type=int, help="(default: 1; a pooling's window; 2 for transposed)")
    add("--padding", type=int, default=0, help="pixels on each side (default: 0)")
    add("--dilation", type=int, help="(default: 1)")
    add("--padding_mode", choices=get_args(PaddingMode), help="(default: zeros)")
    add("--output_padding", type=int, help="of the transposed convolution (default: 0)")
    add(
        "--at",
        nargs=2,
        type=int,
        metavar=("ROW", "COLUMN"),
        help="output value to work out, from 0 (default: the one farthest from 0)",
    )
    add("--channel", choices=CHANNELS, help="of a colour image (default: where that value is)")
    add("--learn", action="store_true", help="also learn the kernel from input and output alone")
    add("--size", type=int, default=64, help="longest side that is not scaled down (default: 64)")
    add(
        "--output",
        type=Path,
        default=Path("logs/convolve/figures"),
        metavar="FOLDER",
        help="where the figures go (default: logs/convolve/figures)",
    )
    return parser


def _check(options: Namespace) -> None:
    """Refuse options that the operation does not have, and numbers out of range."""
    for name, operations in _OWN_OPTIONS.items():
        if getattr(options, name) not in (None, False) and options.operation not in operations:
            raise UserError(
                f"--{name} has no meaning for {options.operation}",
                f"leave it out, or use --operation {' or '.join(operations)}",
            )
    if not _SIZES[0] <= options.size <= _SIZES[1]:
        raise UserError(f"--size {options.size} shows no pixels", f"use {_SIZES[0]} to {_SIZES[1]}")
    for name in ("window", "stride", "padding", "dilation", "output_padding"):
        if (getattr(options, name) or 0) > LARGEST_SIDE:
            raise UserError(
                f"--{name} {getattr(options, name)} is too large for a figure",
                f"use at most {LARGEST_SIDE}",
            )
    if options.image and options.sample:
        raise UserError(f"--sample {options.sample} stands beside {options.image}", "give one")
