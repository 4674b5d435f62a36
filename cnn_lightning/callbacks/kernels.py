"""The kernels of convolutions, epoch by epoch."""

from collections.abc import Iterator, Sequence

import lightning as L
from torch import nn
from typing_extensions import override

from cnn_lightning.analysis.layers import select_layers
from cnn_lightning.callbacks.epoch_pictures import EpochPictures, check_numbers
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.figures import Sheet, draw_kernels


class Kernels(EpochPictures):
    """Draws the kernels of chosen convolutions at the start and every so many epochs.

    Args:
        layers: As for `FeatureMaps`; those that are no convolutions are passed over.
        every_n_epochs: 0 = off; `null` draws after epochs 1, 2, 4, 8 and so on.
        max_kernels: Kernels drawn of each layer.

    Raises:
        UserError: A number is too small, or a pattern matches no layer.

    Example:
        >>> kernels = Kernels(layers="all", every_n_epochs=5, max_kernels=16)
        >>> trainer = L.Trainer(callbacks=[kernels], logger=False, enable_checkpointing=False)
        >>> kernels in trainer.callbacks
        True
    """

    tag = "kernels"

    def __init__(
        self,
        layers: Sequence[str] | str = "first",
        every_n_epochs: int | None = 1,
        max_kernels: int = 64,
    ) -> None:
        super().__init__(layers, every_n_epochs)
        check_numbers(every_n_epochs, max_kernels=max_kernels)
        self.max_kernels = max_kernels

    @override
    def draw(
        self, trainer: L.Trainer, classifier: ImageClassifier, epoch: int
    ) -> Iterator[tuple[str, Sheet]]:
        for name, layer in select_layers(classifier.network, self.layers).items():
            if isinstance(layer, nn.Conv2d):
                title = f"Kernels of {name}, {'untrained' if epoch == 0 else f'epoch {epoch}'}"
                sees_image = layer is classifier.network.first_conv
                yield (
                    name,
                    draw_kernels(
                        layer.weight, title, max_kernels=self.max_kernels, sees_image=sees_image
                    ),
                )
