"""Training losses against the formulas of their papers."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import Tensor

from cnn_lightning import Inception, LeNet, ShapesDataModule
from cnn_lightning.classifiers.losses import training_loss
from cnn_lightning.classifiers.window import TrainingWindow
from cnn_lightning.errors import UserError

NUM_CLASSES = 7


def some_logits(seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(20, NUM_CLASSES, generator=draws, dtype=torch.float64)


LABELS = torch.arange(20) % NUM_CLASSES


def by_hand(logits: Tensor, share: float) -> Tensor:
    """Szegedy et al. 2016, 7: the cross-entropy of q'(k) = (1 - e) q(k) + e / K."""
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits, LABELS.tolist(), strict=True):
        log_p = row - row.exp().sum().log()
        for k in range(NUM_CLASSES):
            q = (1 - share) * (k == label) + share / NUM_CLASSES
            total -= q * log_p[k]
    return total / len(logits)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_smoothed_labels_are_those_of_the_paper(share: float) -> None:
    found = training_loss(some_logits(), [], LABELS, label_smoothing=share)
    torch.testing.assert_close(found, by_hand(some_logits(), share))


def test_auxiliary_heads_are_smoothed_and_weighed() -> None:
    heads = [some_logits(1), some_logits(2)]
    found = training_loss(some_logits(), heads, LABELS, auxiliary_weight=0.3, label_smoothing=0.1)
    wanted = by_hand(some_logits(), 0.1) + 0.3 * sum(by_hand(head, 0.1) for head in heads)
    torch.testing.assert_close(found, wanted)


def test_the_loss_of_mixed_targets_is_the_mix_of_the_losses() -> None:
    others, share = LABELS.roll(1), 0.3
    kinds = [torch.nn.functional.one_hot(of, NUM_CLASSES).double() for of in (LABELS, others)]
    mixed = share * kinds[0] + (1 - share) * kinds[1]
    for smoothing in (0.0, 0.1):
        losses = [
            training_loss(
                some_logits(), [some_logits(1)], of, auxiliary_weight=0.3, label_smoothing=smoothing
            )
            for of in (mixed, LABELS, others)
        ]
        torch.testing.assert_close(losses[0], share * losses[1] + (1 - share) * losses[2])


def test_a_certain_answer_is_best_only_without_smoothing() -> None:
    certain = 30 * torch.nn.functional.one_hot(LABELS, NUM_CLASSES).double()
    assert training_loss(certain, [], LABELS) < 1e-9
    assert training_loss(certain, [], LABELS, label_smoothing=0.1) > 1


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="label_smoothing"):
        LeNet(10, label_smoothing=share)


def test_validation_and_test_measure_plain_cross_entropy(tmp_path: Path) -> None:
    measured = []
    for share in (0.0, 0.9):
        L.seed_everything(0, verbose=False)
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = ShapesDataModule(num_images=40, num_test=20)
        classifier = LeNet(10, label_smoothing=share)
        (val,) = trainer.validate(classifier, data, verbose=False)
        (test,) = trainer.test(classifier, data, verbose=False)
        measured.append((val["val/loss"], test["test/loss"]))
    assert measured[0] == measured[1]


def at_first_of_nine_batches() -> SimpleNamespace:
    return SimpleNamespace(
        accumulate_grad_batches=1,
        num_training_batches=9,
        is_last_batch=False,
        log_every_n_steps=0,
        global_step=0,
    )


@pytest.mark.parametrize(
    "make", [LeNet, lambda *a, **k: Inception(*a, version="googlenet", stem="small", **k)]
)
def test_training_uses_the_smoothed_loss_of_every_head(make: object) -> None:
    L.seed_everything(0, verbose=False)
    classifier = make(10, label_smoothing=0.2)  # type: ignore[operator]
    classifier._trainer = at_first_of_nine_batches()
    classifier.eval()  # no dropout between the two passes
    batch = SimpleNamespace(
        images=torch.rand(4, 3, 32, 32), labels=torch.arange(4), is_features=False, targets=None
    )
    found = classifier.training_step(batch, 0)
    logits, heads = classifier.network.auxiliary_logits(batch.images)
    wanted = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.2)
    for head in heads:
        weight = classifier.network.auxiliary_weight
        wanted = wanted + weight * torch.nn.functional.cross_entropy(
            head, batch.labels, label_smoothing=0.2
        )
    torch.testing.assert_close(found, wanted)


def test_a_mixed_image_counts_as_the_class_with_the_larger_share() -> None:
    classifier = LeNet(10)
    classifier._trainer = at_first_of_nine_batches()
    images = torch.rand(4, 3, 32, 32)
    found = classifier(images).argmax(1)
    others = (found + 1) % 10
    kinds = [torch.nn.functional.one_hot(of, 10).float() for of in (found, others)]
    for share, correct in ((0.7, 4), (0.3, 0)):
        classifier._window = TrainingWindow()
        targets = share * kinds[0] + (1 - share) * kinds[1]
        batch = SimpleNamespace(images=images, labels=found, is_features=False, targets=targets)
        classifier.training_step(batch, 0)
        assert classifier._window.gather(None)[0][1] == correct
