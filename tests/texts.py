"""Whether the texts of a figure can be read: none cut, none over another."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnn_lightning.figures import Sheet, to_png


def drawn_texts(figure: Figure) -> list[Text]:
    """Draw a figure; all texts that are in it, not those of ticks beyond an axis's end."""
    drawn: dict[Text, None] = {}
    draw = Text.draw

    def record(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text():
            drawn[self] = None
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return list(drawn)


def png_as_drawn(figure: Figure) -> bytes:
    """The file of a figure that has been drawn, which is not drawn once more."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
    return to_png(pixels[:, :, :3].permute(2, 0, 1))


def assert_readable(figure: Figure) -> None:
    texts = drawn_texts(figure)
    assert texts
    boxes = [text.get_window_extent() for text in texts]
    assert_inside(figure, boxes)
    # the boxes of slanted texts overlap though the texts do not
    upright = [pair for pair in zip(texts, boxes, strict=True) if not pair[0].get_rotation() % 90]
    for (text, box), (other, other_box) in itertools.combinations(upright, 2):
        assert not box.overlaps(other_box), f"{text} and {other}"


def assert_apart(figure: Figure, boxes: Sequence[Bbox]) -> None:
    """Nothing beyond the figure's edge, nothing over anything else."""
    assert_inside(figure, boxes)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def assert_inside(figure: Figure, boxes: Sequence[Bbox]) -> None:
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


def assert_sheet_readable(sheet: Sheet) -> None:
    """As `assert_readable`, with pictures too, and no ink but that of texts, pictures, frames."""
    assert sheet.texts
    # a picture lies in its frame
    places = [place for _, place in sheet.texts] + (sheet.frames or sheet.pictures)
    height, width = sheet.pixels.shape[:2]
    blank = sheet.pixels.copy()
    for place in places:
        assert min(place.left, place.top) >= 0
        assert place.right <= width
        assert place.bottom <= height
        blank[place.top : place.bottom, place.left : place.right] = 255
    assert (blank == 255).all()
    for one, other in itertools.combinations(places, 2):
        beside = one.right <= other.left or other.right <= one.left
        assert beside or one.bottom <= other.top or other.bottom <= one.top, f"{one} and {other}"
