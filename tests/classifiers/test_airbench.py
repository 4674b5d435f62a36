from pathlib import Path

import lightning as L
import torch

from cnn_lightning.checkpoint_io import AtomicCheckpointIO
from cnn_lightning.classifiers import Airbench
from cnn_lightning.data import ShapesDataModule
from cnn_lightning.networks.layers import PatchWhitening


def whitening_of(classifier: Airbench) -> PatchWhitening:
    layer = classifier.network.backbone.get_submodule("whiten")
    assert isinstance(layer, PatchWhitening)
    return layer


def train(classifier: Airbench, folder: Path, *, seed: int = 0) -> Path:
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=AtomicCheckpointIO(),
    )
    trainer.fit(classifier, shapes(seed))
    path = folder / f"seed_{seed}.ckpt"
    trainer.save_checkpoint(path)
    return path


def shapes(seed: int = 0) -> ShapesDataModule:
    return ShapesDataModule(num_images=40, num_test=20, batch_size=8, seed=seed)


def test_first_layer_is_set_by_the_training_images_and_not_trained(tmp_path: Path) -> None:
    classifier = Airbench(10, widths=(8, 16))
    untrained = whitening_of(classifier).weight.clone()
    train(classifier, tmp_path)
    data = shapes()
    data.setup("fit")
    expected = PatchWhitening(3, 2)
    expected.fit_to(data.prepare(data.load("train")[0][data.stage_indices("train")]))
    assert torch.equal(whitening_of(classifier).weight, expected.weight)
    assert not torch.equal(whitening_of(classifier).weight, untrained)


def test_a_first_layer_that_came_with_weights_stays(tmp_path: Path) -> None:
    first = Airbench(10, widths=(8, 16))
    path = train(first, tmp_path)
    second = Airbench(10, widths=(8, 16), weights=str(path))
    train(second, tmp_path, seed=1)
    assert torch.equal(whitening_of(second).weight, whitening_of(first).weight)
    # other images would have set it otherwise
    third = Airbench(10, widths=(8, 16))
    train(third, tmp_path, seed=1)
    assert not torch.equal(whitening_of(third).weight, whitening_of(first).weight)
