"""The pictures of a page, as many of them as it may hold, and how they stand together."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

# pixels from which a picture is too wide for a phone, and to stand beside another
_MIDDLE, _WIDE = 750, 900
_WHAT_PIL_RAISES = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Picture:
    """A picture as HTML takes it.

    Args:
        source: The file, as a data: URI.
        width: In pixels.
        height: In pixels.
        alt: What is to be seen, for those who cannot.
    """

    source: str
    width: int
    height: int
    alt: str

    @property
    def width_class(self) -> Literal["narrow", "middle", "wide"]:
        """`middle` is too wide for a phone, `wide` to stand beside another."""
        return "wide" if self.width > _WIDE else "middle" if self.width > _MIDDLE else "narrow"


@dataclass(frozen=True)
class Cell:
    """A picture of a run, or why there is none."""

    run: str
    picture: Picture | None
    note: str = ""


@dataclass(frozen=True)
class Frame:
    """The pictures of a layer after one epoch, one per run."""

    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Film:
    """The pictures of a layer over the epochs."""

    layer: str
    anchor: str
    frames: list[Frame]

    @property
    def is_wide(self) -> bool:
        """Whether each picture needs a line of its own."""
        cells = (cell for frame in self.frames for cell in frame.cells)
        return any(
            cell.picture is not None and cell.picture.width_class == "wide" for cell in cells
        )


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    anchor: str
    text: str
    cells: list[Cell] = field(default_factory=list)
    films: list[Film] = field(default_factory=list)


class Album:
    """Takes PNG files in, those of most use first, until the room is used up.

    Args:
        room: Bytes that all pictures may take together, encoded as text.

    Attributes:
        left_out: A line for each picture that is not in.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.left_out: list[str] = []

    def add_file(self, path: Path, alt: str) -> Picture | None:
        """Take a file in; `None` if it is not there, no PNG, or too large for the room left."""
        if not path.is_file():
            return None
        if _encoded(path.stat().st_size) > self._room:
            self.left_out.append(f"{path}: no room left")
            return None
        return self.add(path.read_bytes(), alt, path)

    def add(self, png: bytes, alt: str, path: Path) -> Picture | None:
        """Take the bytes of a file in; likewise."""
        if _encoded(len(png)) > self._room:
            self.left_out.append(f"{path}: no room left")
            return None
        try:
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                width, height = image.size
                image.verify()
        except _WHAT_PIL_RAISES:
            self.left_out.append(f"{path}: not a whole PNG file")
            return None
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        self._room -= len(source)
        return Picture(source, width, height, alt)


def _encoded(size: int) -> int:
    """Length of the data: URI of a PNG file."""
    return len("data:image/png;base64,") + 4 * -(-size // 3)
