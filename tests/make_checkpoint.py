"""Checkpoints as `fit` writes them, without the training."""

from collections.abc import Sequence
from pathlib import Path

from lightning import Callback, Trainer

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.data import ImageDataModule, ShapesDataModule


def save_checkpoint(
    path: Path,
    classifier: ImageClassifier,
    data: ImageDataModule | None = None,
    callbacks: Sequence[Callback] = (),
) -> ImageClassifier:
    """Write a classifier and what it knows of its data, by default 100 shapes; return it."""
    data = data or ShapesDataModule(num_images=100, num_test=20, seed=3)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(callbacks),
        callbacks=[*callbacks],
    )
    classifier.adapt_to(data)
    trainer.strategy.connect(classifier)
    trainer._data_connector.attach_data(classifier, datamodule=data)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(path)
    return classifier
