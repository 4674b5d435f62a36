"""The base of every data module: a whole data set as one uint8 tensor, batches as slices of it."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning import augment as augmentations
from cnn_lightning.data.loader import Batch, ImageLoader, Sharding
from cnn_lightning.errors import UserError
from cnn_lightning.preprocessing import Preprocessing
from cnn_lightning.randomness import generator, run_seed, stratified_split

Split = Literal["train", "test"]
Stage = Literal["train", "val", "test"]
Augment = Literal["none", "flip", "crop", "crop_flip"]

_FACTS = ("class_names", "image_shape", "mean", "std")
_AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "flip": augmentations.flip,
    "crop": augmentations.crop,
    "crop_flip": augmentations.crop_flip,
}


class ImageDataModule(L.LightningDataModule, ABC):
    """Images and labels held in memory; a subclass says what they are and reads them.

    A subclass states `class_names`, `image_shape` (C, H, W), `mean` and `std` (per channel, in
    units of 0..1) and implements `read`.

    Args:
        root: Folder of the data; `None` takes `$CNN_LIGHTNING_DATA`, or else `data`.
        batch_size: Training images per process and step.
        eval_batch_size: Images per process and step in validation, test and prediction.
        val_fraction: Share of each class of the training set held out for validation, 0..1.
        split_seed: Alone decides which images are held out.
        augment: Random changes of training images: `none`, `flip` (left-right), `crop` (pad by 2,
            crop: for digits), `crop_flip` (pad by 4, crop, flip). `None` takes the data set's own
            default.

    Example:
        Images and labels of one's own, with all that training and evaluation need:

        >>> class Noise(ImageDataModule):
        ...     class_names = ("dark", "bright")
        ...     image_shape = (1, 8, 8)
        ...     mean, std = (0.5,), (0.25,)
        ...
        ...     def read(self, split: Split) -> tuple[Tensor, Tensor]:
        ...         labels = torch.arange(20) % 2
        ...         return (100 * labels).byte().reshape(20, 1, 1, 1).expand(20, 1, 8, 8), labels
        >>> data = Noise(batch_size=6)
        >>> data.setup("fit")
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch.images.shape, data.prepare(batch.images).shape
        (torch.Size([6, 1, 8, 8]), torch.Size([6, 1, 8, 8]))
    """

    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    default_augment: Augment = "none"

    def __init__(
        self,
        *,
        root: str | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 2 or eval_batch_size < 1:
            raise UserError(
                f"batch_size {batch_size}, eval_batch_size {eval_batch_size}: too small",
                "use at least 2 for training (batch norm cannot take one image) and 1 elsewhere",
            )
        if not 0 < val_fraction < 1:
            raise UserError(
                f"val_fraction is {val_fraction}",
                "give a share between 0 and 1: best.ckpt is chosen on held-out images",
            )
        self.save_hyperparameters(logger=False)
        self.root = Path(root or os.environ.get("CNN_LIGHTNING_DATA", "data"))
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.augment: Augment = augment or self.default_augment
        self.preprocessing: Preprocessing | None = None
        self._splits: dict[Split, tuple[Tensor, Tensor]] = {}
        self._features: dict[Stage, Tensor] = {}

    @abstractmethod
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Read one split: images N×C×H×W uint8 and labels N int64 in 0..K-1."""

    def image_names(self, split: Split) -> Sequence[str] | None:
        """File names of a split's images in order, or `None` where images have none."""
        return None

    @property
    def num_classes(self) -> int:
        """Classes to tell apart, K."""
        self._check_facts()
        return len(self.class_names)

    @property
    def num_channels(self) -> int:
        """Colour channels of an image, C."""
        return self.image_shape[0]

    def fingerprint(self, split: Split) -> str:
        """A hash of a split's images, 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for chunk in torch.split(self.load(split)[0], 4096):
            digest.update(chunk.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """A split's images and labels as `read` gives them, read once.

        Raises:
            UserError: `read` gives something else than it should.
        """
        if split not in self._splits:
            images, labels = self.read(split)
            check_split(type(self).__name__, split, images, labels, self.num_classes)
            self._splits[split] = images, labels
        return self._splits[split]

    def _check_facts(self) -> None:
        missing = [name for name in _FACTS if not hasattr(self, name)]
        if missing:
            raise UserError(
                f"{type(self).__name__} does not state its {', '.join(missing)}",
                "set them in the class, or in __init__",
            )

    def stage_indices(self, stage: Stage) -> Tensor:
        """Places in their split of the images that a stage uses, int64 in ascending order."""
        labels = self.load("test" if stage == "test" else "train")[1]
        if stage == "test":
            return torch.arange(len(labels))
        try:
            train, val = stratified_split(
                labels, self.val_fraction, "split", self.split_seed, class_names=self.class_names
            )
        except ValueError as error:
            raise UserError(str(error), "add images to this class or delete it") from error
        return train if stage == "train" else val

    def use_features(self, stage: Stage, features: Tensor) -> None:
        """Serve features of a frozen backbone in place of images.

        Args:
            stage: Whose images they stand for.
            features: N×F float for all N images of the stage's split, by their index.
        """
        self._features[stage] = features

    @override
    def setup(self, stage: str) -> None:
        self.load("test" if stage in ("test", "predict") else "train")

    @override
    def train_dataloader(self) -> ImageLoader:
        return self._loader("train", seed=run_seed(), place=self._place)

    @override
    def val_dataloader(self) -> ImageLoader:
        return self._loader("val")

    @override
    def test_dataloader(self) -> ImageLoader:
        return self._loader("test")

    @override
    def predict_dataloader(self) -> ImageLoader:
        return self._loader("test")

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        # Lightning also sends the example input of its model summary through here
        if not isinstance(batch, Batch) or batch.is_features:
            return batch
        images = batch.images
        if self.trainer is not None and self.trainer.training:
            draws = generator("augment", run_seed(), *self._place(), self.trainer.global_rank)
            images = self.augment_images(images, draws)
        return batch._replace(images=self.prepare(images))

    def augment_images(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Change images at random, as training does.

        Args:
            images: N×C×H×W, any dtype.
            draws: Where the random numbers come from, on the CPU.

        Returns:
            N×C×H×W; `images` themselves if `augment` is `none`.
        """
        if self.augment == "none":
            return images
        return _AUGMENTATIONS[self.augment](images, draws)

    def prepare(self, images: Tensor) -> Tensor:
        """Images as a network takes them, in every stage: see `Preprocessing`.

        Args:
            images: N×C×H×W uint8.
        """
        preprocessing = self.preprocessing or Preprocessing(tuple(self.mean), tuple(self.std))
        return preprocessing(images)

    def _place(self) -> tuple[int, int]:
        """The epoch and the batch of it that comes next, as the Trainer counts them."""
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop.epoch_loop
        # overfitting means seeing the same few images again: keep the first epoch's order
        overfits = self.trainer.overfit_batches > 0  # type: ignore[attr-defined]  # set at run time
        epoch = 0 if overfits else self.trainer.current_epoch
        return epoch, loop.batch_progress.current.ready

    def _loader(
        self, stage: Stage, seed: int | None = None, place: Any = lambda: (0, 0)
    ) -> ImageLoader:
        images, labels = self.load("test" if stage == "test" else "train")
        indices = self.stage_indices(stage)
        sharding = Sharding(
            len(indices),
            self.batch_size if stage == "train" else self.eval_batch_size,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            least=2 if stage == "train" else 1,
        )
        return ImageLoader(
            images,
            labels,
            indices,
            sharding,
            features=lambda: self._features.get(stage),
            seed=seed,
            place=place,
        )


def check_split(name: str, split: Split, images: Tensor, labels: Tensor, num_classes: int) -> None:
    """Refuse images and labels that a data module's `read` should not give.

    Raises:
        UserError: `images` are not N×C×H×W uint8, or `labels` not N int64 in 0..K-1.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise UserError(
            f"{name}.read({split!r}) gives images {tuple(images.shape)} of {images.dtype}",
            "give N×C×H×W of torch.uint8, values 0 to 255",
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{name}.read({split!r}) gives {len(images)} images, and labels {tuple(labels.shape)} "
            f"of {labels.dtype}",
            "give a label of torch.int64 for each image",
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise UserError(
            f"{name}.read({split!r}) gives labels {int(labels.min())} to {int(labels.max())} for "
            f"{num_classes} classes",
            "number the classes from 0, in the order of class_names",
        )
