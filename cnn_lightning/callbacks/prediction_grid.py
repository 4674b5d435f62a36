"""What the trained network makes of some validation images, as a picture."""

import lightning as L
import torch
from typing_extensions import override

from cnn_lightning.callbacks.epoch_pictures import images_at_once, is_last_epoch, is_trial
from cnn_lightning.callbacks.showing import show_picture
from cnn_lightning.callbacks.weight_average import averaged_weights
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.figures import draw_predictions
from cnn_lightning.memory import memory_kept
from cnn_lightning.runs import RunFolder

NUM_PICTURED = 36


class PredictionGrid(L.Callback):
    """Draws validation images with predicted and true class when training ends.

    As `figures/validation_predictions.png` and in TensorBoard under the same name.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._drawn_at: int | None = None

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # before the last checkpoint: a run that is killed after it has nothing left to do
        if is_last_epoch(trainer):
            self._draw(trainer, pl_module)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._drawn_at != trainer.global_step:  # early stopping decides late
            self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        if is_trial(trainer) or not trainer.is_global_zero:
            return
        self._drawn_at = trainer.global_step
        if not isinstance(pl_module, ImageClassifier) or not isinstance(data, ImageDataModule):
            return
        images, labels = data.load("train")
        chosen = evenly(data.stage_indices("val"), NUM_PICTURED)
        with (
            averaged_weights(trainer, pl_module),
            # a compiled network would be compiled anew for so few images, and for each view of them
            torch.compiler.set_stance("force_eager"),
            # a step has nothing to gain any more from what is freed
            memory_kept(trainer.strategy.root_device, keep=False),
        ):
            names, probabilities = pl_module.predict_images(
                images[chosen], batch_size=images_at_once(pl_module)
            )
        figure = draw_predictions(
            images[chosen],
            names,
            probabilities.amax(1).tolist(),
            [data.class_names[label] for label in labels[chosen].tolist()],
        )
        picture = self.folder.figures / "validation_predictions.png"
        show_picture(trainer, picture.stem, figure, step=trainer.global_step - 1, path=picture)
        say(str(picture))


def evenly(indices: torch.Tensor, count: int) -> torch.Tensor:
    """At most `count` of N indices, at even distances: files of a folder come class by class."""
    places = torch.linspace(0, len(indices) - 1, min(count, len(indices)))
    return indices[places.round().long()]
