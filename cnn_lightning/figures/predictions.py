"""Images with what was predicted for them, right and wrong told apart."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from torch import Tensor

from cnn_lightning.figures.style import BLUE, DPI, GREY, VERMILION

MAX_IMAGES = 36

# the dashes and the words say the same without colour
_FRAMES: dict[str, dict[str, Any]] = {
    "right": {"edgecolor": BLUE, "linestyle": "-", "linewidth": 2.5},
    "wrong": {"edgecolor": VERMILION, "linestyle": (0, (2.5, 1.5)), "linewidth": 2.5},
    "unknown": {"edgecolor": GREY, "linestyle": "-", "linewidth": 1.0},
}

# all lengths in pixels
_MARGIN = 12
_FRAME_GAP = 5
_TEXT_GAP = 5
_LINE_LETTERS = 24
_MAX_WIDTH = 1300
_SMALL_SIDE = 130
_LARGE_SIDE = 200
# of all images together: a PNG of less than 1 MB, even if they are noise
_MAX_PIXELS = 280_000


def draw_predictions(
    images: Tensor,
    predicted: Sequence[str],
    probabilities: Sequence[float],
    true: Sequence[str] | None = None,
) -> Figure:
    """Draw a grid of images, each above its predicted class, the probability and the truth.

    Right has a solid blue frame, wrong a dashed orange one, unknown a thin grey one. Small images
    are enlarged by a whole factor, pixel by pixel. The figure is as large as the names need.

    Args:
        images: N×C×H×W uint8, N in 1..36, C 1 (grey) or 3 (colour).
        predicted: N class names.
        probabilities: N numbers in 0..1, those of the predicted classes.
        true: N class names, if they are known.

    Returns:
        A figure of 100 dots per inch.

    Raises:
        ValueError: `images` has another shape, or the lengths differ.
    """
    _check(images, predicted, probabilities, true)
    states = _compare(predicted, true)
    figure = Figure(dpi=DPI)
    texts = [
        figure.text(
            0,
            0,
            _describe(name, probability, state, true[i] if true else ""),
            fontsize=9,
            ha="center",
            va="top",
            linespacing=1.3,
            parse_math=False,  # a $ in a class name is a $
        )
        for i, (name, probability, state) in enumerate(
            zip(predicted, probabilities, states, strict=True)
        )
    ]
    _arrange(figure, images.cpu(), texts, states)
    return figure


def _arrange(figure: Figure, images: Tensor, texts: list[Text], states: list[str]) -> None:
    """Size the figure after its texts and put every image above its text."""
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]  # as matplotlib has it
    extents = [text.get_window_extent(renderer) for text in texts]
    text_width = math.ceil(max(extent.width for extent in extents))
    text_height = math.ceil(max(extent.height for extent in extents))
    height, width = (
        side + 2 * _FRAME_GAP for side in _shown_size(len(images), *images.shape[2:])
    )  # with the frame
    cell_width = max(width, text_width) + _MARGIN
    cell_height = height + _TEXT_GAP + text_height + _MARGIN
    num_columns = min(math.ceil(math.sqrt(len(images))), max(1, _MAX_WIDTH // cell_width))
    num_rows = math.ceil(len(images) / num_columns)
    full_width = num_columns * cell_width + _MARGIN
    full_height = num_rows * cell_height + _MARGIN
    # a hundredth of a pixel more, since matplotlib cuts 1.13 * 100 to 112
    figure.set_size_inches((full_width + 0.01) / DPI, (full_height + 0.01) / DPI)
    for i, (image, text, state) in enumerate(zip(images, texts, states, strict=True)):
        row, column = divmod(i, num_columns)
        left = _MARGIN + column * cell_width + (cell_width - _MARGIN - width) // 2
        bottom = full_height - _MARGIN - row * cell_height - height
        box = (left / full_width, bottom / full_height, width / full_width, height / full_height)
        gap = _FRAME_GAP * image.shape[2] / (width - 2 * _FRAME_GAP)
        _draw_framed(figure, image, box, state, gap)
        text.set_position(((left + width / 2) / full_width, (bottom - _TEXT_GAP) / full_height))


def _draw_framed(
    figure: Figure, image: Tensor, box: tuple[float, float, float, float], state: str, gap: float
) -> None:
    """One image in its frame; `gap` is the space between the two, in pixels of the image."""
    height, width = image.shape[1:]
    axes = figure.add_axes(box)
    axes.set_axis_off()
    axes.imshow(
        image.permute(1, 2, 0).numpy(),  # H×W×1 is drawn with the colour map
        cmap="gray",
        vmin=0,
        vmax=255,
        # not "auto", which takes a rounding error of the box for a factor that is not whole
        interpolation="nearest" if gap <= _FRAME_GAP else "antialiased",
        aspect="auto",  # the box has the image's proportions already
    )
    axes.set_xlim(-0.5 - gap, width - 0.5 + gap)
    axes.set_ylim(height - 0.5 + gap, -0.5 - gap)
    frame = Rectangle((0, 0), 1, 1, fill=False, transform=axes.transAxes, **_FRAMES[state])
    frame.set_clip_on(False)
    axes.add_patch(frame)


def _shown_size(num_images: int, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which each image is shown."""
    side = max(height, width)
    enlargement = (_LARGE_SIDE if num_images <= 9 else _SMALL_SIDE) // side
    if enlargement >= 1 and num_images * height * width <= _MAX_PIXELS:
        return height * enlargement, width * enlargement
    target = min(side, _LARGE_SIDE, math.isqrt(_MAX_PIXELS // num_images))
    return max(1, round(height * target / side)), max(1, round(width * target / side))


def _describe(name: str, probability: float, state: str, truth: str) -> str:
    lines = _wrap(f"{name} {_percent(probability)}")
    if state == "right":
        lines.append("right")
    elif state == "wrong":
        verdict = f"wrong: is {truth}"
        lines += [verdict] if len(verdict) <= _LINE_LETTERS else ["wrong: is", *_wrap(truth)]
    return "\n".join(lines)


def _wrap(phrase: str) -> list[str]:
    return textwrap.wrap(phrase, _LINE_LETTERS, break_long_words=False, break_on_hyphens=False)


def _percent(probability: float) -> str:
    """Whole percent, with 0% and 100% kept for what is so exactly."""
    percent = f"{probability:.0%}"
    if percent == "0%" and probability > 0:
        return "<1%"
    if percent == "100%" and probability < 1:
        return ">99%"
    return percent


def _compare(predicted: Sequence[str], true: Sequence[str] | None) -> list[str]:
    if true is None:
        return ["unknown"] * len(predicted)
    return ["right" if p == t else "wrong" for p, t in zip(predicted, true, strict=True)]


def _check(
    images: Tensor,
    predicted: Sequence[str],
    probabilities: Sequence[float],
    true: Sequence[str] | None,
) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be N×1×H×W or N×3×H×W, these are {tuple(images.shape)}")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise ValueError(f"{len(images)} images do not fit the grid of 1 to {MAX_IMAGES}")
    lengths = {
        len(images),
        len(predicted),
        len(probabilities),
        len(images if true is None else true),
    }
    if len(lengths) > 1:
        raise ValueError(f"images, names and probabilities differ in number: {sorted(lengths)}")
