from collections.abc import Callable

import numpy as np
import pytest
import torch
from texts import assert_readable
from torch import Tensor

from cnn_lightning.figures import draw_confusion_matrix, to_array, to_png

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def draw_counts(num_classes: int, num_images: int = 100, right: float = 0.6) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    shares = torch.rand(num_classes, num_classes, generator=draws) ** 6
    shares.fill_diagonal_(0)
    shares *= (1 - right) / shares.sum(1, keepdim=True)
    shares.fill_diagonal_(right)
    predicted = torch.multinomial(shares, num_images, replacement=True, generator=draws)
    return torch.stack([row.bincount(minlength=num_classes) for row in predicted])


def long_names(num_classes: int) -> list[str]:
    return [f"{i}: Old English sheepdog, bobtail, $5 to $10" for i in range(num_classes)]


def short_names(num_classes: int) -> list[str]:
    return [str(i) for i in range(num_classes)]


@pytest.mark.parametrize(
    ("num_classes", "name"),
    [
        (2, short_names),
        (2, long_names),
        (10, long_names),
        (20, short_names),
        (30, long_names),
        (60, long_names),  # whose names are as small as those of 100
        (150, long_names),
    ],
)
def test_no_text_is_cut_or_over_another(num_classes: int, name: Callable[[int], list[str]]) -> None:
    names = name(num_classes)
    figure = draw_confusion_matrix(draw_counts(num_classes, 40_000 // num_classes), names)
    assert_readable(figure)


@pytest.mark.parametrize("num_classes", [2, 10, 20])
def test_up_to_20_classes_every_count_but_0_stands_in_its_cell(num_classes: int) -> None:
    counts = draw_counts(num_classes, 5000)
    axes = draw_confusion_matrix(counts, short_names(num_classes)).axes[0]
    shown = torch.zeros_like(counts)
    for text in axes.texts:
        column, row = text.get_position()
        shown[int(row), int(column)] = int(text.get_text().replace(",", ""))
    assert torch.equal(shown, counts)


def test_the_colour_is_the_share_of_the_row() -> None:
    counts = draw_counts(10, 300) * torch.arange(1, 11)[:, None]
    (image,) = draw_confusion_matrix(counts, CIFAR).axes[0].images
    shares = np.array([[count / sum(row) for count in row] for row in counts.tolist()])
    assert np.allclose(image.get_array(), shares)
    assert image.get_clim() == (0, 1)
    assert not np.allclose(image.get_array(), (counts / counts.sum(0)).numpy())


def test_rows_are_true_and_columns_predicted_classes() -> None:
    axes = draw_confusion_matrix(torch.tensor([[5, 3], [0, 4]]), ["cat", "dog"]).axes[0]
    assert axes.get_ylabel() == "true class"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert {text.get_text(): text.get_position() for text in axes.texts}["3"] == (1, 0)
    assert axes.get_ylim() == (1.5, -0.5)  # the first row on top
    assert axes.get_title(loc="left") == "9 of 12 images right (75.0%)"


def test_many_classes_have_no_numbers_but_a_list_of_the_ten_worst_pairs() -> None:
    counts = draw_counts(100)
    axes = draw_confusion_matrix(counts, [f"c{i}" for i in range(100)]).axes[0]
    heading, *lines = [text.get_text() for text in axes.texts]
    assert heading == "most frequent mistakes, true → predicted"
    pairs = [
        (-int(counts[row, column]), row, column)
        for row in range(100)
        for column in range(100)
        if row != column
    ]
    expected = [
        f"{-count} of 100   c{row} → c{column}" for count, row, column in sorted(pairs)[:10]
    ]
    assert lines == expected


def test_many_classes_without_a_mistake_have_no_list() -> None:
    counts = 5 * torch.eye(30, dtype=torch.int64)
    axes = draw_confusion_matrix(counts, long_names(30)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["no mistakes"]


def test_a_class_without_images_is_grey_and_says_so() -> None:
    counts = draw_counts(10)
    counts[3] = 0
    figure = draw_confusion_matrix(counts, CIFAR)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == [f"{name} (no images)" if name == "cat" else name for name in CIFAR]
    assert not any(text.get_position()[1] == 3 for text in axes.texts)
    pixels = to_array(figure)
    x, y = axes.transData.transform((8.3, 3.3))
    assert len(set(pixels[:, -round(y), round(x)].tolist())) == 1  # grey
    x, y = axes.transData.transform((8.3, 4.3))
    assert len(set(pixels[:, -round(y), round(x)].tolist())) == 3


@pytest.mark.parametrize("num_classes", [20, 1000])
def test_a_png_is_below_a_megabyte(num_classes: int) -> None:
    figure = draw_confusion_matrix(draw_counts(num_classes), long_names(num_classes))
    assert len(to_png(figure)) < 1_000_000


def test_counts_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"counts \(3, 3\) are not those of 2 classes"):
        draw_confusion_matrix(torch.zeros(3, 3), ["cat", "dog"])
