from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stopping import assert_resumes_exactly
from torch.nn import functional as F

from cnn_lightning.cli import main
from cnn_lightning.data import Batch, ShapesDataModule
from cnn_lightning.data.progressive import ProgressiveSize
from cnn_lightning.errors import UserError

RECIPE = """
data:
  class_path: ShapesDataModule
  init_args:
    {num_images: 120, num_test: 20, batch_size: 30, start_size: 20, whole_size_from: 0.7,
     augment: crop_alternating_flip, crop_padding: 2, crop_border: reflect}
model: {class_path: Airbench, init_args: {widths: [8, 16], label_smoothing: 0.2}}
optimizer: {class_path: MuonAdamW}
trainer: {max_epochs: 3}
"""


def test_sizes_rise_evenly_and_end_whole() -> None:
    sizes = [ProgressiveSize(20, 0.5).side(32, step / 12) for step in range(12)]
    assert sizes == [20, 20, 24, 24, 28, 28, 32, 32, 32, 32, 32, 32]
    assert ProgressiveSize().side(32, 0) == 32
    assert ProgressiveSize(48).side(32, 0) == 32  # never larger than they are


def test_images_are_resized_as_torch_does_and_keep_their_order_in_memory() -> None:
    images = torch.rand(3, 3, 32, 32)
    for layout in (torch.channels_last, torch.contiguous_format):
        found = ProgressiveSize(16)(images.contiguous(memory_format=layout), 0.0)
        assert found.is_contiguous(memory_format=layout)
        expected = F.interpolate(images, (16, 16), mode="bilinear", antialias=True)
        torch.testing.assert_close(found, expected)
    assert ProgressiveSize(16)(images, 1.0) is images


def test_images_that_are_no_squares_keep_their_proportions() -> None:
    images = torch.rand(2, 3, 16, 40)
    sizes = [ProgressiveSize(8, 1.0)(images, step / 8).shape[2:] for step in range(9)]
    assert [tuple(size) for size in sizes] == [
        *((3, 8), (5, 12), (6, 16), (8, 20), (10, 24), (11, 28), (13, 32), (14, 36), (16, 40)),
    ]
    upright = ProgressiveSize(8, 1.0)(images.transpose(2, 3), 0.5)
    assert upright.shape[2:] == (24, 10)


def test_a_run_without_a_known_end_is_refused() -> None:
    data = ShapesDataModule(num_images=60, num_test=20, start_size=16)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]  # what the data module asks of it
        overfit_batches=0, num_training_batches=1, max_epochs=-1, max_steps=-1
    )
    batch = Batch(data.load("train")[0][:2], torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(UserError, match="start_size needs the run's length"):
        data.prepare_training(batch, 0, 0)


def test_training_images_grow_and_validation_images_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    original = ShapesDataModule.on_after_batch_transfer

    def noting(self: ShapesDataModule, batch: object, index: int) -> object:
        prepared = original(self, batch, index)  # type: ignore[arg-type]
        if hasattr(prepared, "images") and self.trainer is not None:
            seen.append((bool(self.trainer.training), prepared.images.shape[3]))
        return prepared

    monkeypatch.setattr(ShapesDataModule, "on_after_batch_transfer", noting)
    config = tmp_path / "small.yaml"
    config.write_text(RECIPE)
    off = ["--feature_maps.every_n_epochs=0", "--kernels.every_n_epochs=0"]
    assert main(["fit", "--config", str(config), "--log_dir", str(tmp_path), *off]) == 0
    # 108 images: three batches of 30 and one of 18 in each of three epochs
    assert [size for training, size in seen if training] == [
        *(20, 20, 20, 24),
        *(24, 24, 28, 28),
        *(28, 32, 32, 32),
    ]
    assert {size for training, size in seen if not training} == {32}


def test_images_grow_where_a_few_batches_are_overfitted() -> None:
    data = ShapesDataModule(num_images=60, num_test=20, start_size=16, whole_size_from=0.5)
    progress = SimpleNamespace(current=SimpleNamespace(ready=0))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]  # what the data module asks of it
        training=True,
        global_rank=0,
        overfit_batches=1,
        num_training_batches=1,
        max_epochs=4,
        max_steps=-1,
        current_epoch=0,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    images, labels = data.load("train")
    batch = Batch(images[:2], labels[:2], torch.arange(2))
    sizes = []
    for epoch in range(4):
        data.trainer.current_epoch = epoch  # type: ignore[misc]  # of the stand-in
        sizes.append(data.on_after_batch_transfer(batch, 0).images.shape[3])
    assert sizes == [16, 24, 32, 32]


def test_a_resumed_run_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes_exactly(RECIPE, tmp_path, monkeypatch, 5)


@pytest.mark.parametrize(("start", "whole_from"), [(0, 0.5), (16, 0.0), (16, 1.5)])
def test_numbers_out_of_range_are_refused(start: int, whole_from: float) -> None:
    with pytest.raises(UserError, match="size"):
        ProgressiveSize(start, whole_from)
