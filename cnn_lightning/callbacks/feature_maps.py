"""What convolutions put out for a few images, epoch by epoch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.analysis.activations import channels_first, record_outputs
from cnn_lightning.analysis.layers import select_layers
from cnn_lightning.callbacks.epoch_pictures import EpochPictures, check_numbers, images_at_once
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.figures import Sheet, WholeMaps, draw_feature_maps, shrink_maps
from cnn_lightning.images import fit_image, load_images

MAX_IMAGES = 10


class FeatureMaps(EpochPictures):
    """Draws the output of chosen layers for a few fixed images: a row per image, channels beside.

    At the start (the untrained network), after some epochs, and after the last; it costs nothing in
    between. With a frozen backbone, whose maps never change, once.

    Args:
        layers: `first`, `last` or `all` of the convolutions, a class such as `MaxPool2d`, patterns
            of names such as `backbone.layer1.*`, or several of these.
        every_n_epochs: 0 = off; `null` draws after epochs 1, 2, 4, 8 and so on, and the last.
        images: Image files to show; `null` takes one validation image of each of the first ten
            classes.
        max_channels: Channels drawn of each layer.

    Raises:
        UserError: A number is too small, a pattern matches no layer, a chosen layer puts out no
            maps, a file cannot be read, or there are no validation images to take.

    Example:
        >>> maps = FeatureMaps(layers=["first", "MaxPool2d"], every_n_epochs=2)
        >>> trainer = L.Trainer(callbacks=[maps], logger=False, enable_checkpointing=False)
        >>> maps in trainer.callbacks
        True
    """

    tag = "feature_maps"

    def __init__(
        self,
        layers: Sequence[str] | str = ("first", "last"),
        every_n_epochs: int | None = None,
        images: Sequence[str] | str | None = None,
        max_channels: int = 16,
    ) -> None:
        super().__init__(layers, every_n_epochs)
        check_numbers(every_n_epochs, max_channels=max_channels)
        self.images = [images] if isinstance(images, str) else images
        self.max_channels = max_channels

    @override
    def draw(
        self, trainer: L.Trainer, classifier: ImageClassifier, epoch: int
    ) -> Iterator[tuple[str, Sheet]]:
        images, names = self._choose(trainer, classifier)
        assert classifier.preprocessing is not None  # noqa: S101  # since setup
        prepared = classifier.preprocessing(images.to(classifier.device))
        whole: dict[str, WholeMaps] = {}

        def as_drawn(name: str, output: Tensor) -> Tensor:
            if output.ndim != 4:
                raise UserError(
                    f"layer {name} puts out {tuple(output.shape)}: no maps to draw",
                    "choose convolutions, activations or poolings",
                )
            maps = channels_first(output, prepared)
            drawn = maps[:, : self.max_channels]
            found = WholeMaps.of(drawn, maps.shape[1])
            whole[name] = whole[name].joined(found) if name in whole else found
            return shrink_maps(drawn, len(prepared), (prepared.shape[2], prepared.shape[3]))

        outputs = record_outputs(
            classifier.network,
            select_layers(classifier.network, self.layers),
            prepared,
            trainer.precision_plugin.forward_context(),
            batch_size=images_at_once(classifier),
            select=as_drawn,
        )
        seen = classifier.preprocessing.undo(prepared).cpu()
        for name, maps in outputs.items():
            title = f"Output of {name}, {'untrained' if epoch == 0 else f'epoch {epoch}'}"
            yield name, draw_feature_maps(seen, maps, title, names=names, whole=whole[name])

    def _choose(self, trainer: L.Trainer, classifier: ImageClassifier) -> tuple[Tensor, list[str]]:
        """Images N×C×H×W uint8 of one size, and what they are."""
        if self.images is not None:
            assert classifier.image_shape is not None  # noqa: S101  # since setup
            channels, *size = classifier.image_shape
            loaded = load_images(self.images, channels)
            fitted = [fit_image(image, *size) for image in loaded]
            return torch.stack(fitted), [Path(name).stem for name in self.images]
        return choose_examples(trainer)


def choose_examples(trainer: L.Trainer) -> tuple[Tensor, list[str]]:
    """The first validation image of each of the first ten classes, N×C×H×W uint8, and its class.

    Raises:
        UserError: The data is no `ImageDataModule`.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
    if not isinstance(data, ImageDataModule):
        raise UserError(
            "FeatureMaps finds validation images in an ImageDataModule alone",
            "name image files: FeatureMaps(images=[…])",
        )
    images, labels = data.load("train")
    indices = data.stage_indices("val")
    found = [
        (int(members[0]), name)
        for label, name in enumerate(data.class_names[:MAX_IMAGES])
        if len(members := indices[labels[indices] == label])
    ]
    return images[torch.tensor([index for index, _ in found])], [name for _, name in found]
