"""The base of every data module: a whole data set as one uint8 tensor, batches as slices of it."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from cnn_lightning.augment import Augmentation, Border
from cnn_lightning.checkpoint_content import first_init
from cnn_lightning.choices import check_choice
from cnn_lightning.data.loader import Batch, Features, ImageLoader, Sharding
from cnn_lightning.data.mixing import Mixing
from cnn_lightning.data.progressive import ProgressiveSize
from cnn_lightning.data.residence import Residence
from cnn_lightning.data.sampling import balanced_counts
from cnn_lightning.errors import UserError
from cnn_lightning.preprocessing import Preprocessing
from cnn_lightning.randomness import generator, run_seed, stratified_split

Split = Literal["train", "test"]
Stage = Literal["train", "val", "test"]
Augment = Literal["none", "flip", "crop", "crop_flip", "alternating_flip", "crop_alternating_flip"]
Sampling = Literal["each_once", "balanced"]

_FACTS = ("class_names", "image_shape", "mean", "std")
_AUGMENTATIONS: dict[Augment, Augmentation] = {
    "none": Augmentation(),
    "flip": Augmentation("random"),
    "crop": Augmentation(padding=2),
    "crop_flip": Augmentation("random", padding=4),
    "alternating_flip": Augmentation("alternating"),
    "crop_alternating_flip": Augmentation("alternating", padding=4),
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
            crop: for digits), `crop_flip` (pad by 4, crop, flip), `alternating_flip` (by chance in
            the first epoch, then by turns: Jordan 2024, arXiv:2404.00498, 3.6),
            `crop_alternating_flip`. `None` takes the data set's own default.
        crop_padding: Pixels to pad by before a crop, at least 1, in place of those of `augment`.
        crop_border: What a crop sees beyond the border: `zeros`, or the image mirrored (`reflect`).
        on_device: Whether the images live in the memory of the GPU; `None` puts them there if a
            quarter of what is free holds them.
        sampling: `each_once` trains on every image once an epoch; `balanced` on every class
            equally often, so that images of small classes come more than once and of large ones
            not all in one epoch.
        mixup: alpha of mixup (Zhang et al. 2018, arXiv:1710.09412), such as 0.2; 0 = off.
        cutmix: alpha of CutMix (Yun et al. 2019, arXiv:1905.04899), such as 1; 0 = off. With both
            on, a coin decides for each batch.
        start_size: Longer side in pixels of training images at first, rising to the whole size as
            the run goes on (progressive resizing: Tan and Le 2021, arXiv:2104.00298, 4.2);
            `null` = off.
        whole_size_from: Part of the run after which training images are whole, 0..1.

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
        eval_batch_size: int = 250,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        augment: Augment | None = None,
        crop_padding: int | None = None,
        crop_border: Border = "zeros",
        on_device: bool | None = None,
        sampling: Sampling = "each_once",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        start_size: int | None = None,
        whole_size_from: float = 0.67,
    ) -> None:
        super().__init__()
        check_choice("crop_border", crop_border, Border)
        check_choice("sampling", sampling, Sampling)
        if augment is not None:
            check_choice("augment", augment, Augment)
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
        self.save_hyperparameters(logger=False, frame=first_init(self))
        self.root = Path(root or os.environ.get("CNN_LIGHTNING_DATA", "data"))
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.augment: Augment = self.default_augment if augment is None else augment
        self.crop_padding = crop_padding
        self.crop_border: Border = crop_border
        self.on_device = on_device
        self.sampling: Sampling = sampling
        self.mixing = Mixing(mixup=mixup, cutmix=cutmix)
        self.progressive_size = ProgressiveSize(start_size, whole_size_from)
        self.preprocessing: Preprocessing | None = None
        self._splits: dict[Split, tuple[Tensor, Tensor]] = {}
        self._features: dict[Stage, Features] = {}
        self._residence = Residence(on_device=on_device)

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

    @property
    def shape_is_guessed(self) -> bool:
        """Whether `image_shape` is that of the files at hand, and nobody asked for it."""
        return False

    def expect_shape(self, image_shape: tuple[int, int, int]) -> None:
        """Take the size that a classifier was trained on, where nobody asks for another.

        To be called before images are read; data of one size alone keep it.

        Args:
            image_shape: C, H, W of the images that the classifier was trained on.
        """

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
        if not all(isinstance(name, str) for name in self.class_names):
            raise UserError(
                f"the class_names of {type(self).__name__} are not all texts",
                "make them so: tuple(map(str, …))",
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

    def class_counts(self) -> Tensor:
        """How often training sees each class in an epoch, K int64."""
        labels = self.load("train")[1][self.stage_indices("train")]
        if self.sampling == "balanced":
            return balanced_counts(labels, self.num_classes)
        return torch.bincount(labels, minlength=self.num_classes)

    def stored_images(self, split: Split, indices: Tensor) -> Tensor:
        """Some images of a split, to look at: n×C×H×W uint8."""
        return self.load(split)[0][indices]

    def use_features(self, stage: Stage, features: Features) -> None:
        """Serve features of a frozen backbone in place of images.

        Args:
            stage: Whose images they stand for.
            features: Those of all images of the stage's split.
        """
        self._features[stage] = features

    @override
    def setup(self, stage: str) -> None:
        self.augmentation()
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
    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        if not isinstance(batch, Batch):
            return cast(Batch, super().transfer_batch_to_device(batch, device, dataloader_idx))
        return batch.to(device)

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        # Lightning also sends the example input of its model summary through here
        if not isinstance(batch, Batch) or batch.is_features:
            return batch
        if self.trainer is not None and self.trainer.training:
            epoch, number = self._place()
            return self.prepare_training(batch, epoch, number, self.trainer.global_rank)
        return batch._replace(images=self.prepare(batch.images))

    def prepare_training(self, batch: Batch, epoch: int, number: int, rank: int = 0) -> Batch:
        """A batch as it is read, made ready for a training step.

        Its images are augmented, prepared, and mixed if so wished.

        Args:
            batch: Images N×C×H×W uint8, or features, which stay as they are.
            epoch: The epoch it belongs to.
            number: Which of the epoch's batches it is.
            rank: The process that it is for.
        """
        if batch.is_features:
            return batch
        place = (run_seed(), epoch, number, rank)
        draws = generator("augment", *place)
        images = self.augment_images(batch.images, draws, indices=batch.indices, epoch=epoch)
        images = self.progressive_size(self.prepare(images), self._progress(epoch, number))
        if not self.mixing:
            return batch._replace(images=images)
        classes = F.one_hot(batch.labels, self.num_classes).float()
        images, targets = self.mixing(images, classes, "mix", *place)
        return batch._replace(images=images, targets=targets)

    def training_loader(self, epoch: int) -> ImageLoader:
        """One epoch's training batches as they are read, with or without a Trainer."""
        return self._loader("train", seed=run_seed(), place=lambda: (epoch, 0))

    def augment_images(
        self,
        images: Tensor,
        draws: torch.Generator,
        *,
        indices: Tensor | None = None,
        epoch: int = 0,
    ) -> Tensor:
        """Change images at random, as training does.

        Args:
            images: N×C×H×W, any dtype.
            draws: Where the random numbers come from, on the CPU.
            indices: N int64, each image's place in the data set; alternating flips need them.
            epoch: The epoch they are for; alternating flips depend on it.

        Returns:
            N×C×H×W; `images` themselves if `augment` is `none`.
        """
        return self.augmentation()(
            images,
            draws,
            indices=indices,
            epoch=epoch,
            seed=run_seed(),
            num_images=len(self.load("train")[1]),
        )

    def augmentation(self) -> Augmentation:
        """What `augment` and the arguments of the crop ask for.

        Raises:
            UserError: They do not go together, or with the size of the images.
        """
        found = _AUGMENTATIONS[self.augment]
        if self.crop_padding is None and self.crop_border == "zeros":
            return found
        if not found.padding:
            raise UserError(
                f"augment {self.augment} crops nothing, and crop_padding or crop_border is set",
                "leave them out, or use an augment with crop",
            )
        padding = found.padding if self.crop_padding is None else self.crop_padding
        most = min(self.image_shape[1:]) - 1
        if not 1 <= padding <= most:
            raise UserError(f"crop_padding is {padding}", f"give a number in 1..{most}")
        return Augmentation(found.flip, padding, self.crop_border)

    def prepare(self, images: Tensor) -> Tensor:
        """Images as a network takes them, in every stage: see `Preprocessing`.

        Args:
            images: N×C×H×W uint8.
        """
        preprocessing = self.preprocessing or Preprocessing(self.mean, self.std)
        return preprocessing(images)

    def _progress(self, epoch: int, number: int) -> float:
        """How much of the run has passed at a batch of an epoch: 0..1, and 1 without a Trainer."""
        if self.trainer is None or self.progressive_size.start is None:
            return 1.0
        if self._overfits():
            epoch = self.trainer.current_epoch  # images grow, though their order stays
        num_batches = int(self.trainer.num_training_batches)
        shares = []  # of whichever end comes first, the run is farther
        if (self.trainer.max_epochs or -1) > 0:
            shares.append((epoch + number / num_batches) / cast(int, self.trainer.max_epochs))
        if self.trainer.max_steps > 0:
            batches = self.trainer.max_steps * self.trainer.accumulate_grad_batches
            shares.append((epoch * num_batches + number) / batches)
        if not shares:
            raise UserError(
                "start_size needs the run's length, and nothing limits its epochs or steps",
                "add --trainer.max_epochs or --trainer.max_steps, or leave start_size out",
            )
        return min(1.0, max(shares))

    def _place(self) -> tuple[int, int]:
        """The epoch and the batch of it that comes next, as the Trainer counts them."""
        if self.trainer is None:
            return 0, 0
        loop = self.trainer.fit_loop.epoch_loop
        # overfitting means seeing the same few images again: keep the first epoch's order
        epoch = 0 if self._overfits() else self.trainer.current_epoch
        return epoch, loop.batch_progress.current.ready

    def _overfits(self) -> bool:
        if self.trainer is None:
            return False
        return bool(self.trainer.overfit_batches > 0)  # type: ignore[attr-defined]  # set at run time

    def _loader(
        self, stage: Stage, seed: int | None = None, place: Any = lambda: (0, 0)
    ) -> ImageLoader:
        images, labels = self.load("test" if stage == "test" else "train")
        indices = self.stage_indices(stage)
        device = self.trainer.strategy.root_device if self.trainer else images.device
        balanced = stage == "train" and self.sampling == "balanced"
        sharding = Sharding(
            int(self.class_counts().sum()) if balanced else len(indices),
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
            move=lambda tensor: self._residence.place(tensor, device),
            seed=seed,
            place=place,
            balanced=balanced,
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
