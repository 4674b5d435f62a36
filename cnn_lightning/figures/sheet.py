"""A picture put together from pixels and words, where matplotlib would take ten times as long."""

from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cnn_lightning.figures.style import DPI

Pixels = NDArray[np.uint8]

_WHITE = 255


class Place(NamedTuple):
    """A rectangle in pixels from the upper left corner; `right` and `bottom` lie outside."""

    left: int
    top: int
    right: int
    bottom: int


class Words(NamedTuple):
    """Lettered text, ready to be put on a sheet.

    Args:
        text: What it says.
        pixels: h×w uint8, black on white, cut to the text; 0×0 where there is none.
    """

    text: str
    pixels: Pixels

    @property
    def height(self) -> int:
        """In pixels."""
        return len(self.pixels)

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])


@lru_cache(maxsize=4096)
def letter(
    text: str, points: float, *, align: Literal["left", "center", "right"], spacing: float = 1.15
) -> Words:
    """Letter a text in matplotlib's own font.

    Args:
        text: Any number of lines.
        points: Size of the letters, at 100 dots per inch.
        align: Of the lines among each other.
        spacing: From one line to the next, in heights of a line.
    """
    if not text.strip():
        return Words("", np.zeros((0, 0), dtype=np.uint8))
    font = _font(points)
    _, ascent, _, descent = font.getbbox("lp", anchor="ls")  # from the base line, downwards
    step = round((descent - ascent) * spacing)
    lines = [(line, font.getbbox(line, anchor="ls")) for line in text.split("\n")]
    # as high as plain letters, whatever the words, so that base lines agree; accents add to it
    top = round(min(ascent, *(i * step + box[1] for i, (_, box) in enumerate(lines))))
    bottoms = [i * step + max(descent, box[3]) for i, (_, box) in enumerate(lines)]
    width = round(max(box[2] - box[0] for _, box in lines))
    image = Image.new("L", (width, round(max(bottoms)) - top), _WHITE)
    draw = ImageDraw.Draw(image)
    for i, (line, box) in enumerate(lines):
        room = width - round(box[2] - box[0])
        left = {"left": 0, "center": room // 2, "right": room}[align]
        draw.text((left - box[0], i * step - top), line, fill=0, font=font, anchor="ls")
    return Words(text, np.asarray(image))


@cache
def _font(points: float) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    # the other layout engine is not in every installation of Pillow
    return ImageFont.truetype(path, points * DPI / 72, layout_engine=ImageFont.Layout.BASIC)


class Sheet:
    """A white picture to be filled.

    Args:
        height: In pixels.
        width: In pixels.

    Attributes:
        pixels: H×W×3 uint8.
        texts: What was written, and where it stands.
        pictures: Where pixels were put.
        frames: Where frames were drawn, their lines included.
    """

    def __init__(self, height: int, width: int) -> None:
        self.pixels: Pixels = np.full((height, width, 3), _WHITE, dtype=np.uint8)
        self.texts: list[tuple[str, Place]] = []
        self.pictures: list[Place] = []
        self.frames: list[Place] = []

    def write(self, words: Words, left: int, top: int) -> None:
        """Put words on the sheet, darkening what is below; no words are passed over."""
        if words.text:
            place = Place(left, top, left + words.width, top + words.height)
            region = self._region(place)
            np.minimum(region, words.pixels[:, :, None], out=region)
            self.texts.append((words.text, place))

    def paste(self, pixels: Pixels, left: int, top: int) -> None:
        """Put pixels h×w×3 uint8 on the sheet as they are."""
        place = Place(left, top, left + pixels.shape[1], top + pixels.shape[0])
        self._region(place)[:] = pixels
        self.pictures.append(place)

    def frame(self, place: Place, colour: str, thickness: int, *, dashed: bool = False) -> None:
        """Draw lines of `thickness` pixels along the inner edge of a place.

        Args:
            place: What they fill to its edge.
            colour: As matplotlib names it.
            thickness: Of the lines, in pixels.
            dashed: Dashes of 3 thicknesses, gaps of about 2; each corner is a dash.
        """
        region = self._region(place)
        height, width = region.shape[:2]
        shade = np.round(np.array(to_rgb(colour)) * 255).astype(np.uint8)
        rows, columns = (
            _dashes(length, 3 * thickness, 2 * thickness) if dashed else np.ones(length, bool)
            for length in (height, width)
        )
        for side, along in (
            (region[:thickness], columns),
            (region[-thickness:], columns),
            (region[:, :thickness].swapaxes(0, 1), rows),
            (region[:, -thickness:].swapaxes(0, 1), rows),
        ):
            side[:, along] = shade
        self.frames.append(place)

    def _region(self, place: Place) -> Pixels:
        height, width = self.pixels.shape[:2]
        if min(place) < 0 or place.right > width or place.bottom > height:
            raise ValueError(f"{place} is not within a sheet of {width}×{height} pixels")
        return self.pixels[place.top : place.bottom, place.left : place.right]


def _dashes(length: int, dash: int, gap: int) -> NDArray[np.bool_]:
    """Which pixels of a line are drawn: dashes at both ends, and evenly between."""
    drawn = np.zeros(length, dtype=bool)
    count = max(1, round((length - dash) / (dash + gap)))
    for start in np.linspace(0, max(0, length - dash), count + 1).round().astype(int):
        drawn[start : start + dash] = True
    return drawn
