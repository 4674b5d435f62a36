import itertools
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from texts import png_as_drawn

from cnn_lightning.figures import draw_channel_statistics, draw_class_balance, to_png
from cnn_lightning.figures.datasets import channel_names

LONG = ["Donaudampfschifffahrtsgesellschaft", "$5 to $10 note", "Old English sheepdog, bobtail"]


def balance(count: int, splits: int = 3) -> Figure:
    values = [100 * (number * 7 % 13) for number in range(count)]
    counts = dict.fromkeys(("training", "validation", "test")[:splits], values)
    return draw_class_balance(counts, [f"{LONG[i % 3]} {i}" for i in range(count)], "a $ title")


def assert_texts_lie_apart(figure: Figure) -> None:
    boxes = []
    draw = Text.draw

    def record(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        if self.get_visible() and self.get_text():
            boxes.append(self.get_window_extent(renderer))
        draw(self, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        FigureCanvasAgg(figure).draw()
    assert len(boxes) > 5
    for box in boxes:
        assert box.x0 >= -0.5
        assert box.y0 >= -0.5
        assert box.x1 <= figure.bbox.width + 0.5
        assert box.y1 <= figure.bbox.height + 0.5
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize(("count", "splits"), [(2, 3), (10, 1), (30, 2)])
def test_balance_is_legible(count: int, splits: int) -> None:
    figure = balance(count, splits)
    assert_texts_lie_apart(figure)
    labels = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"{LONG[i % 3]} {i}" for i in range(count)]


def test_bars_are_as_long_as_they_say_and_splits_differ_in_colour_and_hatch() -> None:
    counts = {"training": [900, 12_000], "validation": [100, 0], "test": [7, 9]}
    figure = draw_class_balance(counts, ["cat", "dog"], "a title")
    looks = set()
    for axes, (split, values) in zip(figure.axes, counts.items(), strict=True):
        bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
        assert [bar.get_width() for bar in bars] == values
        assert [text.get_text() for text in axes.texts] == [f"{value:,}" for value in values]
        assert axes.get_title() == f"{split}: {sum(values):,} images"
        looks.add((bars[0].get_facecolor(), bars[0].get_hatch()))
    assert len({colour for colour, _ in looks}) == len({hatch for _, hatch in looks}) == 3


def test_of_many_classes_the_extremes_are_shown_and_the_title_says_so() -> None:
    values = [(number * 37) % 100 for number in range(100)]
    figure = draw_class_balance({"training": values}, [str(n) for n in range(100)], "a title")
    shown = [bar.get_width() for bar in figure.axes[0].patches]
    assert shown == [*range(99, 79, -1), *range(19, -1, -1)]
    assert "40 of 100 classes" in figure.get_suptitle()
    assert len(to_png(balance(100))) < 1_000_000


def test_splits_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        draw_class_balance({"training": [1, 2, 3]}, ["cat", "dog"], "a title")


def peaked(channels: int) -> torch.Tensor:
    counts = torch.full((channels, 256), 10)
    counts[:, 0] = 100_000
    return counts


@pytest.mark.parametrize(("has_peak", "channels"), [(True, 3), (False, 1)])
def test_channel_statistics_are_legible(has_peak: bool, channels: int) -> None:
    counts = peaked(channels) if has_peak else torch.full((channels, 256), 10)
    computed, constants = ([0.13] * channels, [0.31] * channels), ([0.5] * channels,) * 2
    figure = draw_channel_statistics(counts, computed, constants, "a title\nand\nmore")
    assert_texts_lie_apart(figure)
    upper, lower = figure.axes
    assert upper.get_yscale() == ("log" if has_peak else "linear")
    # a legend of the channels where there are several, and of the two kinds of numbers
    assert (upper.get_legend() is not None) == (channels == 3)
    assert len({stairs.get_linestyle() for stairs in upper.patches}) == channels
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "computed from the images",
        "constants used",
    ]
    numbers = [text.get_text() for text in lower.texts]
    assert numbers == ["0.1300 ± 0.3100"] * channels + ["0.5000 ± 0.5000"] * channels
    assert len(png_as_drawn(figure)) < 1_000_000


def test_the_curve_is_the_share_of_each_value() -> None:
    counts = torch.arange(256)[None]
    figure = draw_channel_statistics(counts, ([0.5], [0.2]), ([0.5], [0.2]), "a title")
    shares, edges, _ = figure.axes[0].patches[0].get_data()
    assert shares == pytest.approx((counts[0] / counts.sum()).numpy())
    assert (edges[1:] + edges[:-1]) / 2 == pytest.approx((torch.arange(256) / 255).numpy())


@pytest.mark.parametrize(
    ("values", "channels"),
    [({0: 900, 255: 100}, 3), ({128: 5}, 1), ({0: 1000, 40: 1, 255: 30}, 3)],
    ids=str,
)
def test_values_that_stand_alone_are_seen(values: dict[int, int], channels: int) -> None:
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for value, count in values.items():
        counts[:, value] = count
    known = ([0.5] * channels, [0.2] * channels)
    figure = draw_channel_statistics(counts, known, known, "a title")
    assert_texts_lie_apart(figure)
    upper = figure.axes[0]
    canvas = np.array(figure.canvas.buffer_rgba())[:, :, :3]  # as it was drawn
    pixels, box = (
        torch.from_numpy(canvas).amin(2),
        upper.get_window_extent(),
    )  # 0 is a coloured pixel
    top, bottom = (round(figure.bbox.height - edge) for edge in (box.y1, box.y0))
    for value in values:
        x = round(upper.transData.transform((value / 255, 1))[0])
        inked = (pixels[top : bottom - 3, x - 3 : x + 4] < 200).any(1)
        height = upper.transData.transform((0, value_share(counts, value)))[1] - box.y0
        # from the axis up to the first gap, since a legend may stand above
        assert inked.flip(0).cumprod(0).sum() == pytest.approx(height, abs=6)
        assert height > 20
    labels = [label.get_text() for label in upper.get_yticklabels(which="both")]
    assert all(label == "" or label.endswith("%") for label in labels)


def value_share(counts: torch.Tensor, value: int) -> float:
    return float(counts[0, value] / counts[0].sum())


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        draw_channel_statistics(peaked(3), ([0.1], [0.1]), ([0.1] * 3, [0.1] * 3), "a title")


def test_channels_have_names() -> None:
    assert channel_names(1) == ["grey"]
    assert channel_names(3) == ["red", "green", "blue"]
    assert channel_names(2) == ["channel 0", "channel 1"]
