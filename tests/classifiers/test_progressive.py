"""Training on small images first."""

from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from stopping import LAST, assert_resumes_exactly
from torchvision.transforms.v2 import functional as reference

from cnn_lightning.classifiers import LeNet, ResNet
from cnn_lightning.classifiers.progressive import shrink
from cnn_lightning.cli import main
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.errors import UserError

# 108 training images: four steps an epoch, eight in all
RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 120, num_test: 20, batch_size: 30, eval_batch_size: 20}
model:
  class_path: LeNet
  init_args: {progressive_size: [[28, 0.6]]}
trainer: {max_epochs: 2}
"""


@pytest.mark.parametrize("size", [16, 23, 31])
def test_images_shrink_as_in_torchvision(size: int) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = reference.resize(images, [size, size], antialias=True)
    torch.testing.assert_close(shrink(images, size), wanted)
    layout = torch.channels_last
    found = shrink(images.contiguous(memory_format=layout), size)
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous(memory_format=layout)


def test_the_shorter_side_of_other_images_gets_the_size() -> None:
    assert shrink(torch.zeros(1, 3, 30, 40), 15).shape == (1, 3, 15, 20)


def test_sizes_follow_the_share_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, list[int]] = {"train": [], "val": []}
    forward = ResNet.forward

    def recorded(self: ResNet, images: torch.Tensor) -> torch.Tensor:
        sizes["train" if self.training else "val"].append(images.shape[-1])
        return forward(self, images)

    monkeypatch.setattr(ResNet, "forward", recorded)
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = ShapesDataModule(num_images=40, num_test=20, batch_size=9, eval_batch_size=20)
    trainer.fit(ResNet(10, progressive_size=[(8, 0.25), (16, 0.7)]), data)
    # of eight steps, those before 2 and before 5.6
    assert sizes["train"] == [8, 8, 16, 16, 16, 16, 32, 32]
    assert set(sizes["val"]) == {32}


@pytest.mark.parametrize(
    "stages", [[(16, 0.0)], [(16, 0.5), (24, 0.5)], [(16, 1.1)], [(0, 0.5)], [(16, float("nan"))]]
)
def test_stages_that_cannot_be_meant_are_refused(stages: list[tuple[int, float]]) -> None:
    with pytest.raises(UserError, match="progressive_size"):
        LeNet(10, progressive_size=stages)


@pytest.mark.parametrize("size", [20, 32])
def test_sizes_that_cannot_be_taken_or_are_no_smaller_are_refused(size: int) -> None:
    classifier = LeNet(10, progressive_size=[(size, 0.5)])  # LeNet takes 28 pixels or more
    with pytest.raises(UserError, match="takes 28 or more, and the images are of 32"):
        classifier.adapt_to(ShapesDataModule(num_images=40, num_test=20))


def test_a_frozen_backbone_goes_with_one_size() -> None:
    with pytest.raises(UserError, match="leave out one"):
        ResNet(10, freeze="backbone", progressive_size=[(16, 0.5)])


def test_a_resumed_run_has_the_same_bits_and_a_saved_config_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = assert_resumes_exactly(RECIPE, tmp_path, monkeypatch, 3)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["progressive_size"] == [[28, 0.6]]
    replayed = ["fit", "--config", str(run / "config.yaml"), "--trainer.max_steps=1"]
    assert main([*replayed, "--log_dir", str(tmp_path / "again"), "--run", "again"]) == 0
    kept = torch.load(run / LAST, weights_only=True)["hyper_parameters"]["progressive_size"]
    assert [tuple(stage) for stage in kept] == [(28, 0.6)]
    assert main(["test", "--ckpt_path", str(run / LAST), "--log_dir", str(tmp_path / "test")]) == 0
