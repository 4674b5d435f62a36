"""The base of callbacks that draw pictures as training goes on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import lightning as L
from typing_extensions import override

from cnn_lightning.analysis.layers import select_layers
from cnn_lightning.callbacks.showing import show_picture
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.console import say
from cnn_lightning.errors import UserError
from cnn_lightning.figures import Sheet
from cnn_lightning.runs import RunFolder

# of images in one forward pass: a few large ones take more memory than training a frozen network
_MAX_PIXELS = 224 * 224


class EpochPictures(L.Callback, ABC):
    """Draws at the start of training, after some of the epochs, and after the last.

    Into TensorBoard as `<tag>/<name>`, where a slider plays the epochs, and into the run folder as
    `figures/<tag>/<name>/epoch_<n>.png`. Weights, buffers and random numbers stay as they are.

    Args:
        layers: Those to draw: see `select_layers`.
        every_n_epochs: 0 = off; `None` draws after epochs 1, 2, 4, 8 and so on: networks change
            most at first, and a long run costs little more than a short one.
    """

    tag: str

    def __init__(self, layers: Sequence[str] | str, every_n_epochs: int | None) -> None:
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        self.every_n_epochs = every_n_epochs
        self.folder: RunFolder | None = None

    @abstractmethod
    def draw(
        self, trainer: L.Trainer, classifier: ImageClassifier, epoch: int
    ) -> Iterator[tuple[str, Sheet]]:
        """Draw pictures, each with a name that has no `/`; `epoch` counts those that are done."""

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_epochs == 0 or not isinstance(pl_module, ImageClassifier):
            return
        # a mistake is told before any training
        if not select_layers(pl_module.network, self.layers):
            title = pl_module.network.title
            say(f"no {self.tag.replace('_', ' ')} are drawn: {title} has no convolutions")

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, pl_module, 0)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not rests(pl_module) and (is_last_epoch(trainer) or self._is_due(epoch)):
            self._draw(trainer, pl_module, epoch)

    def _is_due(self, epoch: int) -> bool:
        if self.every_n_epochs:
            return epoch % self.every_n_epochs == 0
        return epoch.bit_count() == 1

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        if self.every_n_epochs == 0 or is_trial(trainer) or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, ImageClassifier):
            return
        step = max(trainer.global_step - 1, 0)
        for name, picture in self.draw(trainer, pl_module, epoch):
            path = None
            if self.folder is not None:
                path = self.folder.figures / self.tag / name / f"epoch_{epoch:03}.png"
            show_picture(trainer, f"{self.tag}/{name}", picture, step=step, path=path)


def check_numbers(every_n_epochs: int | None, **numbers: int) -> None:
    """Refuse numbers that say neither how often to look nor at how much.

    Args:
        every_n_epochs: 0 = off.
        **numbers: How many of something to look at, by the name of the argument.

    Raises:
        UserError: `every_n_epochs` is below 0, or another number below 1.
    """
    if every_n_epochs is not None and every_n_epochs < 0:
        raise UserError(f"every_n_epochs is {every_n_epochs}", "give a number of epochs, or 0: off")
    for name, number in numbers.items():
        if number < 1:
            raise UserError(f"{name} is {number}", "give at least 1; every_n_epochs: 0 is off")


def is_trial(trainer: L.Trainer) -> bool:
    """Whether this is a `fast_dev_run`, which leaves nothing behind."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set at run time


def is_last_epoch(trainer: L.Trainer) -> bool:
    """Whether training ends with this epoch, as far as is known at its end."""
    by_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return trainer.current_epoch + 1 == trainer.max_epochs or by_steps or trainer.should_stop


def rests(pl_module: L.LightningModule) -> bool:
    """Whether all but the head is frozen, so that no look inside differs from the first."""
    return isinstance(pl_module, ImageClassifier) and pl_module.freeze_part == "backbone"


def images_at_once(classifier: ImageClassifier) -> int:
    """How many images to look at in one forward pass while a classifier, set up, trains."""
    assert classifier.preprocessing is not None  # noqa: S101  # since setup
    assert classifier.image_shape is not None  # noqa: S101
    size = classifier.preprocessing.size
    pixels = math.prod(classifier.image_shape[1:]) if size is None else size**2
    return max(1, _MAX_PIXELS // pixels)
