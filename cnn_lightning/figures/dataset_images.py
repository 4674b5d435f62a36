"""Images of a data set on one page: some of each class, and single ones with their names."""

import math
import textwrap
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

from cnn_lightning.figures.style import new_figure

MAX_ROWS = 20
MAX_COLUMNS = 20
MAX_NAMED_IMAGES = 50

# all lengths in pixels
_MARGIN = 14
_GAP = 6
_EDGE = 1  # a grey line around each image, so that white ones end somewhere
_EDGE_GREY = 190
_NAME_LETTERS = 24
_TITLE_LETTERS = 72
_MAX_WIDTH = 1300
_ROW_SIDE = 64
# of all images together: a PNG of less than 1 MB, even if they are noise
_MAX_PIXELS = 280_000


def draw_samples(rows: Sequence[Tensor], names: Sequence[str], title: str) -> Figure:
    """Draw a row of images for each class, its name at the left.

    Small images are enlarged by a whole factor, pixel by pixel; large ones are scaled down.

    Args:
        rows: Images of each class, each M×C×H×W uint8, M in 0..20 and not the same for all, C 1
            (grey) or 3 (colour); 1 to 20 classes.
        names: Their names.
        title: Above all; may have several lines.

    Returns:
        A figure of 100 dots per inch, as large as images and names need.

    Raises:
        ValueError: There are too many images or none, or as many names as rows there are not.
    """
    most = max(map(len, rows), default=0)
    if not 1 <= len(rows) <= MAX_ROWS or not 1 <= most <= MAX_COLUMNS or len(rows) != len(names):
        raise ValueError(f"{len(names)} names, {len(rows)} rows of up to {most} images do not fit")
    figure = _new_page()
    heading = _write_title(figure, title)
    labels = [_write(figure, name, ha="right", va="center") for name in names]
    label_width, label_height = _largest(figure, labels)
    height, width = _shown_size(sum(map(len, rows)), rows[0], _ROW_SIDE)
    pitch = max(height, label_height) + _GAP
    left = _MARGIN + label_width + _GAP
    top = _MARGIN + _largest(figure, [heading])[1] + 2 * _GAP
    right = left + most * (width + _GAP) - _GAP
    page = _blank(figure, top + len(rows) * pitch - _GAP, right, heading)
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        middle = top + number * pitch + (pitch - _GAP) // 2
        _move(figure, label, left - _GAP, middle)
        for column, image in enumerate(row):
            _place(page, image, middle - height // 2, left + column * (width + _GAP), height, width)
    figure.figimage(page.permute(1, 2, 0).numpy())
    return figure


def draw_named_images(
    images: Tensor, names: Sequence[str], title: str, *, side: int = 96
) -> Figure:
    """Draw a grid of images, each above its name.

    Small images are enlarged by a whole factor, pixel by pixel; large ones are scaled down.

    Args:
        images: N×C×H×W uint8, N in 1..50, C 1 (grey) or 3 (colour).
        names: N names.
        title: Above all; may have several lines.
        side: Longer side of an image in the figure, about, in pixels.

    Returns:
        A figure of 100 dots per inch, as large as images and names need.

    Raises:
        ValueError: There are too many images or none, or as many names there are not.
    """
    if not 1 <= len(images) <= MAX_NAMED_IMAGES or len(images) != len(names):
        raise ValueError(f"{len(names)} names and {len(images)} images do not fit")
    figure = _new_page()
    heading = _write_title(figure, title)
    labels = [_write(figure, name, ha="center", va="top") for name in names]
    height, width = _shown_size(len(images), images, side)
    across = max(width, _largest(figure, labels)[0]) + 2 * _GAP
    num_columns = min(_columns(len(images)), max(1, _MAX_WIDTH // across))
    lines = [labels[start : start + num_columns] for start in range(0, len(labels), num_columns)]
    pitches = [height + _largest(figure, line)[1] + 3 * _GAP for line in lines]
    top = _MARGIN + _largest(figure, [heading])[1] + 2 * _GAP
    right = _MARGIN + num_columns * across
    page = _blank(figure, top + sum(pitches) - 2 * _GAP, right, heading)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(number, num_columns)
        y, x = top + sum(pitches[:row]), _MARGIN + column * across + (across - width) // 2
        _place(page, image, y, x, height, width)
        _move(figure, label, x + width / 2, y + height + _GAP)
    figure.figimage(page.permute(1, 2, 0).numpy())
    return figure


def _columns(count: int) -> int:
    """Columns of a grid that is a little wider than high, its last row as full as may be."""
    least = math.ceil(math.sqrt(count))
    return min(range(least, math.ceil(1.6 * least) + 1), key=lambda columns: -count % columns)


def _new_page() -> Figure:
    figure = new_figure(1, 1)
    figure.set_layout_engine("none")  # every length here is a whole number of pixels
    return figure


def _write_title(figure: Figure, title: str) -> Text:
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, _TITLE_LETTERS)]
    return figure.text(
        0, 0, "\n".join(lines), fontsize=10, ha="left", va="top", linespacing=1.4, parse_math=False
    )


def _write(figure: Figure, name: str, *, ha: str, va: str) -> Text:
    lines = textwrap.wrap(name, _NAME_LETTERS, break_long_words=False, break_on_hyphens=False)
    # a $ in a class name is a $
    return figure.text(0, 0, "\n".join(lines), fontsize=9, ha=ha, va=va, parse_math=False)


def _largest(figure: Figure, texts: Sequence[Text]) -> tuple[int, int]:
    """The greatest width and height of some texts, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]  # matplotlib
    extents = [text.get_window_extent(renderer) for text in texts]
    return (
        math.ceil(max(extent.width for extent in extents)),
        math.ceil(max(extent.height for extent in extents)),
    )


def _blank(figure: Figure, bottom: int, right: int, heading: Text) -> Tensor:
    """Size the figure after what is to come, place its title, and return its empty pixels."""
    width = max(right, _MARGIN + _largest(figure, [heading])[0]) + _MARGIN
    height = bottom + _MARGIN
    # a hundredth of a pixel more, since matplotlib cuts 1.13 * 100 to 112
    figure.set_size_inches((width + 0.01) / figure.dpi, (height + 0.01) / figure.dpi)
    _move(figure, heading, _MARGIN, _MARGIN)
    return torch.full((3, height, width), 255, dtype=torch.uint8)


def _move(figure: Figure, text: Text, x: float, y: float) -> None:
    """Move a text to a place in pixels from the upper left."""
    text.set_position((x / figure.bbox.width, 1 - y / figure.bbox.height))


def _shown_size(count: int, images: Tensor, side: int) -> tuple[int, int]:
    """Height and width in pixels at which each of `count` images is shown, without its edge."""
    height, width = images.shape[2:]
    longer = max(height, width)
    if longer <= side and count * height * width <= _MAX_PIXELS:
        return height * (side // longer), width * (side // longer)
    target = min(longer, side, math.isqrt(_MAX_PIXELS // count))
    return max(1, round(height * target / longer)), max(1, round(width * target / longer))


def _place(page: Tensor, image: Tensor, top: int, left: int, height: int, width: int) -> None:
    if height >= image.shape[1]:
        factor = height // image.shape[1]
        shown = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    else:
        shown = F.interpolate(
            image[None].float(), (height, width), mode="bilinear", antialias=True
        )[0]
    page[:, top - _EDGE : top + height + _EDGE, left - _EDGE : left + width + _EDGE] = _EDGE_GREY
    page[:, top : top + height, left : left + width] = shown.round().clamp(0, 255).to(torch.uint8)
