"""What is measured of a split is a mean over its images, however they come."""

import pytest
import torch
import torch.nn.functional as F

from cnn_lightning.classifiers.metrics import EvaluationMetrics

NAMES = ("ant", "bee", "cow")


@pytest.mark.parametrize("sizes", [[11], [5, 5, 1], [1] * 11, [2, 9]])
def test_batches_of_any_size_give_the_same(sizes: list[int]) -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(11, 3, generator=draws)
    labels = torch.arange(11) % 3
    metrics = EvaluationMetrics(3, detailed=True)
    for some, of_them in zip(logits.split(sizes), labels.split(sizes), strict=True):
        metrics.update(some, of_them)
    found = metrics.take(NAMES)
    answers = logits.argmax(1)
    wanted = {"loss": F.cross_entropy(logits, labels), "accuracy": (answers == labels).float()}
    for label, name in enumerate(NAMES):
        wanted[f"accuracy/{name}"] = (answers == labels)[labels == label].float()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value.mean(), msg=name)


def test_it_begins_anew() -> None:
    metrics = EvaluationMetrics(3)
    wanted = []
    for seed in (0, 1):
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        metrics.update(logits, torch.tensor([0, 1, 2, 0]))
        wanted.append(F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])))
        torch.testing.assert_close(metrics.take(NAMES)["loss"], wanted[-1])
    assert wanted[0] != wanted[1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_image_is_not_left_out_of_the_loss(bad: float) -> None:
    metrics = EvaluationMetrics(3)
    for value in (0.0, bad, 1.0):
        metrics.update(torch.tensor([[value, 1.0, 2.0]]), torch.tensor([1]))
    assert not torch.isfinite(metrics.take(NAMES)["loss"])


def test_a_class_without_images_has_no_accuracy() -> None:
    metrics = EvaluationMetrics(3, detailed=True)
    # a cow is taken for an ant, a bee is nowhere, and one image is taken for a bee
    metrics.update(torch.eye(3)[[0, 1, 0]], torch.tensor([0, 0, 2]))
    found = {name: float(value) for name, value in metrics.take(NAMES).items()}
    assert "accuracy/bee" not in found
    assert (found["accuracy/ant"], found["accuracy/cow"]) == (0.5, 0.0)
