"""A picture as a file's bytes or as pixels."""

import struct
import zlib

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cnn_lightning.figures.sheet import Sheet


def to_png(picture: Figure | Sheet | Tensor) -> bytes:
    """The bytes of a PNG file (W3C, PNG, third edition) of a picture.

    Args:
        picture: A figure, a sheet, or pixels 3×H×W uint8 as `to_array` gives them.
    """
    pixels = picture if isinstance(picture, Tensor) else to_array(picture)
    _, height, width = pixels.shape
    # each row begins with its filter, 0 for none: Pillow tries all five on every row, which takes
    # three times as long and leaves enlarged pixels and flat colours no smaller
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = pixels.permute(1, 2, 0).reshape(height, 3 * width).numpy()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of red, green, blue
    # level 3 of zlib takes about half the time of its usual 6, for files about a tenth larger
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 3)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file: its length, kind, content and checksum."""
    check = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def to_array(picture: Figure | Sheet) -> Tensor:
    """The pixels of a picture, 3×H×W uint8, as TensorBoard's `add_image` takes them.

    Example:
        >>> to_array(Figure(figsize=(2, 1), dpi=100)).shape
        torch.Size([3, 100, 200])
    """
    if isinstance(picture, Sheet):
        return torch.from_numpy(picture.pixels).permute(2, 0, 1)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()  # type: ignore[no-untyped-call]  # as matplotlib has it
    buffer = canvas.buffer_rgba()  # type: ignore[no-untyped-call]  # as matplotlib has it
    pixels = torch.from_numpy(np.array(buffer))  # H×W×4
    return pixels[:, :, :3].permute(2, 0, 1).contiguous()
