import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from cnn_lightning.analysis.mistakes import confusion_counts, worst_mistakes


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_counts_are_those_of_a_hand_written_loop_and_of_torchmetrics(num_classes: int) -> None:
    draws = torch.Generator().manual_seed(0)
    probabilities = torch.randn(400, num_classes, generator=draws).softmax(1)
    labels = torch.randint(num_classes - 1, (400,), generator=draws)  # the last class lacks images
    expected = [[0] * num_classes for _ in range(num_classes)]
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        expected[label][row.index(max(row))] += 1
    counts = confusion_counts(probabilities, labels)
    assert counts.tolist() == expected
    assert torch.equal(counts, multiclass_confusion_matrix(probabilities, labels, num_classes))
    assert not torch.equal(counts, counts.T)  # or rows and columns could be swapped unseen


def test_worst_mistakes_are_wrong_and_most_confident_first() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.2, 0.8]])
    labels = torch.tensor([0, 1, 0, 0, 0])
    assert worst_mistakes(probabilities, labels, 9).tolist() == [2, 4, 3, 1]
    assert worst_mistakes(probabilities, labels, 2).tolist() == [2, 4]


def test_without_mistakes_there_is_no_worst() -> None:
    assert worst_mistakes(torch.eye(3), torch.arange(3), 9).tolist() == []
