"""Class weights, held against sums written out by hand."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from make_data import make_folder
from torch.nn import functional as F

from cnn_lightning.classifiers import LeNet
from cnn_lightning.classifiers.class_weights import balanced_weights, weighted_cross_entropy
from cnn_lightning.classifiers.losses import training_loss
from cnn_lightning.data import ImageFolderDataModule
from cnn_lightning.errors import UserError

WEIGHTS = [0.5, 2.0, 4.0]


def draw(count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    logits = torch.randn(count, 3, generator=draws, requires_grad=True)
    return logits, torch.tensor([0, 0, 1, 2, 0, 1, 0])[:count]


def test_the_loss_is_the_sum_written_out() -> None:
    logits, labels = draw()
    total = 0.0
    for row, label in zip(logits.detach().tolist(), labels.tolist(), strict=True):
        share = math.exp(row[label]) / sum(map(math.exp, row))
        total -= WEIGHTS[label] * math.log(share)
    loss = weighted_cross_entropy(logits, labels, torch.tensor(WEIGHTS))
    assert loss.detach().item() == pytest.approx(total / 7, rel=1e-6)
    # torch divides by the sum of the weights, and is the same otherwise
    torchs = F.cross_entropy(logits, labels, weight=torch.tensor(WEIGHTS))
    of_batch = torch.tensor(WEIGHTS)[labels]
    assert torch.allclose(loss, torchs * of_batch.mean())


@pytest.mark.parametrize("mixed", [False, True])
def test_what_smoothing_spreads_weighs_what_the_image_does(*, mixed: bool) -> None:
    logits, labels = draw()
    weights = torch.tensor(WEIGHTS)
    targets = F.one_hot(labels, 3).float()
    if mixed:
        targets = 0.7 * targets + 0.3 * targets.roll(1, 0)
    loss = weighted_cross_entropy(
        logits, targets if mixed else labels, weights, label_smoothing=0.2
    )
    total = torch.zeros(())
    for row, shares in zip(logits.log_softmax(1), targets, strict=True):
        for label, share in enumerate(shares):
            smooth = 0.8 * F.one_hot(torch.tensor(label), 3) + 0.2 / 3
            total -= share * weights[label] * (smooth * row).sum()
    torch.testing.assert_close(loss, total / 7)


@pytest.mark.parametrize("mixed", [False, True])
def test_mixed_precision_rounds_the_logits_alone(*, mixed: bool) -> None:
    logits, labels = draw()
    logits, weights = logits.bfloat16(), torch.tensor([1.37, 0.21, 2.9])
    targets = F.one_hot(labels, 3).float()
    given = 0.7 * targets + 0.3 * targets.roll(1, 0) if mixed else labels
    with torch.autocast("cpu", torch.bfloat16):
        found = weighted_cross_entropy(logits, given, weights, label_smoothing=0.2)
    wanted = weighted_cross_entropy(logits.float(), given, weights, label_smoothing=0.2)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


def test_smoothing_does_not_teach_the_rare_class_for_the_common_one() -> None:
    weights = balanced_weights(torch.tensor([100, 1]), ["common", "rare"])
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.tensor([0]), weights, label_smoothing=0.1)
    (slope,) = torch.autograd.grad(loss, logits)
    assert slope[0, 0] < 0 < slope[0, 1]


def test_without_weights_it_is_torchs_to_the_bit() -> None:
    logits, labels = draw()
    assert torch.equal(
        weighted_cross_entropy(logits, labels, None), F.cross_entropy(logits, labels)
    )


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    logits, labels = draw(6)
    weights = torch.tensor(WEIGHTS)
    (whole,) = torch.autograd.grad(weighted_cross_entropy(logits, labels, weights), logits)
    halves = [
        weighted_cross_entropy(logits[part], labels[part], weights) / 2
        for part in (slice(3), slice(3, 6))
    ]
    (parts,) = torch.autograd.grad(halves[0] + halves[1], logits)
    assert torch.allclose(whole, parts)
    torchs = [
        F.cross_entropy(logits[part], labels[part], weight=weights) / 2
        for part in (slice(3), slice(3, 6))
    ]
    (other,) = torch.autograd.grad(torchs[0] + torchs[1], logits)
    (torchs_whole,) = torch.autograd.grad(F.cross_entropy(logits, labels, weight=weights), logits)
    assert not torch.allclose(other, torchs_whole)  # why torch's mean is not taken


def test_balanced_weights_give_every_class_the_same_sum() -> None:
    counts = torch.tensor([60, 30, 10])
    weights = balanced_weights(counts, "abc")
    assert weights.tolist() == pytest.approx([100 / 180, 100 / 90, 100 / 30])
    assert (weights * counts).tolist() == pytest.approx([100 / 3] * 3)
    with pytest.raises(UserError, match="class b has no training images"):
        balanced_weights(torch.tensor([60, 0, 10]), "abc")


@pytest.fixture
def data(tmp_path: Path) -> ImageFolderDataModule:
    root = make_folder(tmp_path / "photos", ("ant", "bee", "cow"), per_class=20)
    for path in sorted((root / "train/cow").iterdir())[4:]:
        path.unlink()
    return ImageFolderDataModule(root=str(root), image_size=32, batch_size=39)


def fit(classifier: L.LightningModule, data: ImageFolderDataModule, folder: Path) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(classifier, data)
    return trainer


class Watched(LeNet):
    """Keeps what one training step saw."""

    seen: dict[str, torch.Tensor]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        with torch.no_grad():
            self.seen = {"logits": self(batch.images), "labels": batch.labels}
        loss = super().training_step(batch, batch_idx)
        self.seen["loss"] = loss.detach()
        return loss


@pytest.mark.parametrize("asked", ["balanced", [39 / 54, 39 / 54, 39 / 9]])
def test_training_weighs_by_the_counts_of_the_data(
    asked: Any, data: ImageFolderDataModule, tmp_path: Path
) -> None:
    # 18, 18 and 3 of 39 images are trained on, all in one step
    classifier = Watched(3, class_weights=asked)
    trainer = fit(classifier, data, tmp_path)
    seen = classifier.seen
    assert seen["labels"].bincount().tolist() == [18, 18, 3]
    losses = F.cross_entropy(seen["logits"], seen["labels"], reduction="none")
    by_class = torch.stack([losses[seen["labels"] == label].mean() for label in range(3)])
    assert torch.allclose(seen["loss"], by_class.mean(), rtol=1e-5)
    assert not torch.allclose(seen["loss"], losses.mean(), rtol=1e-5)  # the control
    # validation counts all images alike: 2, 2 and 1
    (batch,) = data.val_dataloader()
    classifier.eval()
    with torch.no_grad():
        plain = F.cross_entropy(classifier(data.prepare(batch.images)), batch.labels)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(float(plain), rel=1e-5)


def test_weights_are_of_the_data_and_not_in_the_checkpoint(
    data: ImageFolderDataModule, tmp_path: Path
) -> None:
    classifier = LeNet(3, class_weights="balanced")
    fit(classifier, data, tmp_path).save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["hyper_parameters"]["class_weights"] == "balanced"
    assert content["state_dict"].keys() == LeNet(3).state_dict().keys()
    again = LeNet.load_from_checkpoint(tmp_path / "a.ckpt")
    assert again.class_weights == "balanced"


def test_balanced_sampling_leaves_nothing_to_weigh(data: ImageFolderDataModule) -> None:
    data.sampling = "balanced"
    assert balanced_weights(data.class_counts(), data.class_names).tolist() == [1, 1, 1]


def test_auxiliary_losses_are_weighed_too() -> None:
    (logits, labels), weights = draw(2), torch.tensor(WEIGHTS)
    own = weighted_cross_entropy(logits, labels, weights)
    found = training_loss(logits, [2 * logits], labels, auxiliary_weight=0.3, class_weights=weights)
    assert torch.allclose(found, own + 0.3 * weighted_cross_entropy(2 * logits, labels, weights))


@pytest.mark.parametrize("asked", [[1.0, 2.0], [1.0, 0.0, 1.0], [1.0, 2.0, math.inf], []])
def test_impossible_weights_are_refused(asked: list[float]) -> None:
    with pytest.raises(UserError, match="for 3 classes"):
        LeNet(3, class_weights=asked)


def test_balanced_weights_need_a_data_module() -> None:
    classifier = LeNet(3, class_weights="balanced")
    classifier._trainer = L.Trainer(accelerator="cpu", barebones=True)
    with pytest.raises(UserError, match="needs a data module"):
        classifier.setup("fit")
