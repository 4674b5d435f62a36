import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from scipy.stats import binomtest
from texts import assert_readable, png_as_drawn
from torch import Tensor

from cnn_lightning.figures import draw_class_accuracy, draw_reliability

CORRECT, COUNTS = torch.tensor([9, 0, 50, 0]), torch.tensor([10, 0, 200, 5])
NAMES = ["cat", "$5 to $10 note", "dog", "Old English sheepdog, bobtail"]


def bars_of(axes: Axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of error bars N×2, and lower and upper ends."""
    (container,) = (c for c in axes.containers if isinstance(c, ErrorbarContainer))
    points, _, (lines,) = container.lines
    segments = np.array(lines.get_segments())
    vertical = not np.ptp(segments[:, :, 0])
    axis = 1 if vertical or np.allclose(segments[:, 0, 0], segments[:, 1, 0]) else 0
    return points.get_xydata(), segments[:, 0, axis], segments[:, 1, axis]  # type: ignore[union-attr]


def labels_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def test_classes_are_sorted_with_wilson_intervals_and_the_mean() -> None:
    (axes,) = draw_class_accuracy(CORRECT, COUNTS, NAMES).axes
    assert labels_of(axes) == [NAMES[3], NAMES[2], NAMES[0], NAMES[1]]
    points, low, high = bars_of(axes)
    assert points.tolist() == [[0, 0], [0.25, 1], [0.9, 2]]  # none for the class without images
    for place, (correct, count) in enumerate([(0, 5), (50, 200), (9, 10)]):
        expected = binomtest(correct, count).proportion_ci(0.95, method="wilson")
        assert low[place] == pytest.approx(expected.low, abs=1e-9)
        assert high[place] == pytest.approx(expected.high, abs=1e-9)
    (mean,) = (line for line in axes.lines if str(line.get_label()).startswith("mean"))
    assert mean.get_xdata() == pytest.approx([(0 + 0.25 + 0.9) / 3] * 2)
    told = [text.get_text() for text in axes.texts]
    assert told == ["0 of 5", "50 of 200", "9 of 10", "no images"]


@pytest.mark.parametrize(
    ("num_classes", "name"), [(1, NAMES[1]), (1, "1"), (10, NAMES[1]), (10, "1"), (150, NAMES[1])]
)
def test_no_text_of_the_class_accuracy_is_cut_or_over_another(num_classes: int, name: str) -> None:
    counts = torch.full((num_classes,), 1000)
    figure = draw_class_accuracy(torch.arange(num_classes) * 6, counts, [name] * num_classes)
    assert_readable(figure)
    assert len(png_as_drawn(figure)) < 1_000_000


def test_of_many_classes_the_least_and_the_most_accurate_are_shown() -> None:
    counts = torch.full((1000,), 2000)
    counts[700:] = 0
    figure = draw_class_accuracy(
        torch.arange(1000) * (counts > 0), counts, list(map(str, range(1000)))
    )
    (axes,) = figure.axes
    shown = [*map(str, range(50)), "", *map(str, range(650, 700)), ""]
    assert labels_of(axes) == shown
    told = [text.get_text() for text in axes.texts]
    assert told[50] == "… 600 between …"
    assert told[-1] == "300 more: no images"


def test_all_images_right_is_drawn_too() -> None:
    (axes,) = draw_class_accuracy(10**6 * COUNTS, 10**6 * COUNTS, NAMES).axes
    first, last = axes.get_xlim()
    assert first < 1 < last


BIN_COUNTS = torch.tensor([0, 4, 0, 120_000, 1234])
BIN_CORRECT = torch.tensor([0, 1, 0, 60_000, 1234])
BIN_CONFIDENCE = BIN_COUNTS * torch.tensor([0.0, 0.3, 0.0, 0.7, 0.99], dtype=torch.float64)


def test_bins_show_accuracy_against_mean_confidence_and_their_images() -> None:
    figure = draw_reliability(BIN_COUNTS, BIN_CORRECT, BIN_CONFIDENCE, 0.1234)
    above, below = figure.axes
    points, low, high = bars_of(above)
    assert points == pytest.approx(np.array([[0.3, 0.25], [0.7, 0.5], [0.99, 1]]))
    for place, (correct, count) in enumerate([(1, 4), (60_000, 120_000), (1234, 1234)]):
        expected = binomtest(correct, count).proportion_ci(0.95, method="wilson")
        assert low[place] == pytest.approx(expected.low, abs=1e-9)
        assert high[place] == pytest.approx(expected.high, abs=1e-9)
    (bars,) = (c for c in above.containers if isinstance(c, BarContainer))
    edges = [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in bars]
    assert np.array(edges) == pytest.approx(
        np.array([[0.2, 0.4, 0.25], [0.6, 0.8, 0.5], [0.8, 1.0, 1.0]])
    )
    assert [bar.get_height() for bar in below.patches] == BIN_COUNTS.tolist()  # type: ignore[attr-defined]
    assert [text.get_text() for text in below.texts] == ["4", "120k", "1,234"]
    title = figure.get_suptitle()
    assert "expected calibration error 12.3% (5 bins)" in title
    assert "accuracy 50.5%, mean confidence 70.3%, 121,238 images" in title


def random_bins() -> Tensor:
    return torch.randint(50_000, 99_999, (15,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "counts", [random_bins(), torch.tensor([0] * 14 + [10]), torch.tensor([1] * 15)], ids=str
)
def test_no_text_of_the_reliability_diagram_is_cut_or_over_another(counts: Tensor) -> None:
    figure = draw_reliability(counts, counts // 2, 0.5 * counts, 0.5)
    assert_readable(figure)
    assert len(png_as_drawn(figure)) < 1_000_000


def test_what_has_no_images_or_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="0 images"):
        draw_class_accuracy(0 * COUNTS, 0 * COUNTS, NAMES)
    with pytest.raises(ValueError, match="4 and 4 counts of 3 classes"):
        draw_class_accuracy(CORRECT, COUNTS, NAMES[:3])
    with pytest.raises(ValueError, match="0 images"):
        draw_reliability(torch.zeros(15), torch.zeros(15), torch.zeros(15), 0)
    with pytest.raises(ValueError, match="15, 14 and 15 bins"):
        draw_reliability(torch.ones(15), torch.ones(14), torch.ones(15), 0)
