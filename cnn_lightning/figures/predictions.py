"""Images with what was predicted for them, right and wrong told apart."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cnn_lightning.figures.sheet import Place, Sheet, letter
from cnn_lightning.figures.style import BLUE, GREY, VERMILION
from cnn_lightning.figures.tiles import image_pixels, resize

MAX_IMAGES = 36

# the dashes and the words say the same without colour
_FRAMES: dict[str, dict[str, Any]] = {
    "right": {"colour": BLUE, "thickness": 3},
    "wrong": {"colour": VERMILION, "thickness": 3, "dashed": True},
    "unknown": {"colour": GREY, "thickness": 1},
}

# all lengths in pixels
_MARGIN = 12
_FRAME_GAP = 6  # between an image and its frame's outer edge
_TEXT_GAP = 5
_FONT = 9  # points
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
) -> Sheet:
    """Draw a grid of images, each above its predicted class, the probability and the truth.

    Right has a solid blue frame, wrong a dashed orange one, unknown a thin grey one. Small images
    are enlarged by a whole factor, pixel by pixel. The figure is as large as the names need.

    Args:
        images: N×C×H×W uint8, N in 1..36, C 1 (grey) or 3 (colour); of others the mean is shown.
        predicted: N class names.
        probabilities: N numbers in 0..1, those of the predicted classes.
        true: N class names, if they are known.

    Returns:
        A sheet as large as needed.

    Raises:
        ValueError: `images` has another shape, or the lengths differ.
    """
    _check(images, predicted, probabilities, true)
    states = _compare(predicted, true)
    texts = [
        letter(
            _describe(name, probability, state, true[i] if true else ""),
            _FONT,
            align="center",
            spacing=1.3,
        )
        for i, (name, probability, state) in enumerate(
            zip(predicted, probabilities, states, strict=True)
        )
    ]
    image_height, image_width = _shown_size(len(images), *images.shape[2:])
    height, width = image_height + 2 * _FRAME_GAP, image_width + 2 * _FRAME_GAP
    cell_width = max(width, max(text.width for text in texts)) + _MARGIN
    cell_height = height + _TEXT_GAP + max(text.height for text in texts) + _MARGIN
    num_columns = min(math.ceil(math.sqrt(len(images))), max(1, _MAX_WIDTH // cell_width))
    num_rows = math.ceil(len(images) / num_columns)
    sheet = Sheet(num_rows * cell_height + _MARGIN, num_columns * cell_width + _MARGIN)
    for i, (image, text, state) in enumerate(zip(images, texts, states, strict=True)):
        row, column = divmod(i, num_columns)
        top = _MARGIN + row * cell_height
        left = _MARGIN + column * cell_width + (cell_width - _MARGIN - width) // 2
        pixels = resize(image_pixels(image), image_height, image_width)
        sheet.paste(pixels, left + _FRAME_GAP, top + _FRAME_GAP)
        sheet.frame(Place(left, top, left + width, top + height), **_FRAMES[state])
        sheet.write(text, left + (width - text.width) // 2, top + height + _TEXT_GAP)
    return sheet


def _shown_size(num_images: int, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which each image is shown."""
    side = max(height, width)
    enlargement = (_LARGE_SIDE if num_images <= 9 else _SMALL_SIDE) // side
    if enlargement >= 1 and num_images * height * width <= _MAX_PIXELS:
        return height * enlargement, width * enlargement
    target = min(side, _LARGE_SIDE, math.isqrt(_MAX_PIXELS // num_images))
    return max(1, round(height * target / side)), max(1, round(width * target / side))


def _describe(name: str, probability: float, state: str, truth: str) -> str:
    lines = _wrap(f"{name}: {_percent(probability)}")
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
    if images.ndim != 4:
        raise ValueError(f"images must be N×C×H×W, these are {tuple(images.shape)}")
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
