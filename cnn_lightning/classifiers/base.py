"""The base of every classifier: steps, metrics, optimizer, and what travels in the checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from cnn_lightning.analysis.activations import evaluating
from cnn_lightning.augment import Views, average_views
from cnn_lightning.checkpoint_content import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KEY,
    Content,
    as_plain,
    first_init,
    plain_arguments,
)
from cnn_lightning.choices import check_choice
from cnn_lightning.classifiers import class_weights as weighting
from cnn_lightning.classifiers import optimization, transfer
from cnn_lightning.classifiers.interfaces import ImageBatch, ImageData, Predictions, StepOutput
from cnn_lightning.classifiers.lean import LeanModule
from cnn_lightning.classifiers.losses import check_smoothing, training_loss
from cnn_lightning.classifiers.metrics import EvaluationMetrics
from cnn_lightning.classifiers.optimization import ClassSpec
from cnn_lightning.classifiers.resumed_schedule import ResumedSchedule
from cnn_lightning.classifiers.whitening import fit_whitening
from cnn_lightning.classifiers.window import (
    TrainingWindow,
    ends_step,
    is_logged,
    scale_of_part,
    tell,
)
from cnn_lightning.console import say
from cnn_lightning.errors import UserError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.images import fit_image, load_images
from cnn_lightning.networks import Network
from cnn_lightning.networks.sequential import as_network
from cnn_lightning.preprocessing import Preprocessing
from cnn_lightning.randomness import run_seed, seed_torch

Interval = Literal["step", "epoch"]
Part = Literal["backbone"]
Layout = Literal["channels_last", "contiguous"]


class ImageClassifier(LeanModule):
    """A network with its loss, metrics, optimizer and the preparation of its images.

    Args:
        network: Images N×C×H×W to logits N×K: a `Network`, or a `nn.Sequential` whose last layer
            with weights is the head.
        optimizer: Class and arguments; the default is SGD with Nesterov momentum.
        schedule: Class and arguments of the learning-rate schedule, told the run's length.
        schedule_interval: What the schedule counts.
        weights: Where the backbone's weights come from: `null` (random), a torchvision weights name
            (`DEFAULT`, `IMAGENET1K_V1`), or the path of a state dict or of a checkpoint. The head
            always starts anew.
        freeze: `backbone` trains the last layer alone.
        image_size: Side in pixels that images are resized to; `null` leaves images alone that the
            network can take and takes the size that pretrained weights were trained with.
        label_smoothing: Share of every label that is spread over all classes, in the training loss
            alone (Szegedy et al. 2016, arXiv:1512.00567), from 0 to below 1.
        test_augment: Views of an image over which `test` and `predict` average the logits, as
            airbench does (Jordan 2024, arXiv:2404.00498): `none`, `flip` (the mirror image too) or
            `flip_shift` (both also moved by a pixel: six views, six times the work). Validation
            always looks once.
        layout: Order of a batch's values in memory, pixel by pixel or plane by plane; `null` takes
            the one that this network trains faster in.
        class_weights: How much an image of each class counts in the training loss: `balanced`
            (inversely to how often training sees the class), or a number for each class; `null`
            counts all alike. Validation and test count all images alike.

    Raises:
        UserError: The weights cannot be had or do not fit, the network has no head, or a number is
            out of its range.

    Example:
        A network of one's own, with all that training, checkpoints and prediction need:

        >>> class Tiny(ImageClassifier):
        ...     def __init__(self, num_classes: int, in_channels: int = 3, **kwargs):
        ...         network = nn.Sequential(
        ...             *(nn.Conv2d(in_channels, 8, 3, stride=2), nn.ReLU()),
        ...             *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)),
        ...         )
        ...         super().__init__(network, **kwargs)
        >>> Tiny(num_classes=2)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 2])
    """

    torchvision_name: str | None = None

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: ClassSpec | None = None,
        schedule: ClassSpec | None = None,
        schedule_interval: Interval = "step",
        weights: str | None = None,
        freeze: Part | None = None,
        image_size: int | None = None,
        label_smoothing: float = 0.0,
        test_augment: Views = "none",
        layout: Layout | None = None,
        class_weights: weighting.ClassWeights | None = None,
    ) -> None:
        super().__init__()
        check_choice("schedule_interval", schedule_interval, Interval)
        check_choice("test_augment", test_augment, Views)
        if freeze is not None:
            check_choice("freeze", freeze, Part)
        if layout is not None:
            check_choice("layout", layout, Layout)
        check_smoothing(label_smoothing)
        self.save_hyperparameters(ignore=["network"], frame=first_init(self))
        network = as_network(network)
        self.channels_last = network.channels_last if layout is None else layout != "contiguous"
        self.network = network
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        self.optimizer = optimizer or optimization.DEFAULT_OPTIMIZER
        self.schedule = schedule or optimization.DEFAULT_SCHEDULE
        self.schedule_interval = schedule_interval
        self.freeze_part = freeze
        self.image_size = image_size
        self.label_smoothing = label_smoothing
        self.test_augment: Views = test_augment
        self.num_classes = _count_classes(network)
        self.class_names: tuple[str, ...] | None = None
        self.preprocessing: Preprocessing | None = None
        self.image_shape: tuple[int, int, int] | None = None
        self._weights_preprocessing: Preprocessing | None = None
        self._weights_origin = weights
        if weights is not None:
            self._weights_preprocessing = transfer.load_weights(
                network, weights, self.torchvision_name
            )
        if freeze == "backbone":
            transfer.freeze_all_but_head(network)
        self.class_weights = class_weights
        # of the data, and so not of the checkpoint
        initial = weighting.initial_weights(class_weights, self.num_classes)
        self.register_buffer("loss_weights", initial, persistent=False)
        self._window = TrainingWindow()
        self._resumed: ResumedSchedule | None = None
        self._run_seed = 0
        self.val_metrics = EvaluationMetrics(self.num_classes)
        self.test_metrics = EvaluationMetrics(self.num_classes, detailed=True)

    @property
    def learning_rate(self) -> float | None:
        """That of the optimizer, `None` if its default; Lightning's `Tuner` reads and sets it."""
        return cast(float | None, self.optimizer.get("init_args", {}).get("lr"))

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        arguments = {**self.optimizer.get("init_args", {}), "lr": rate}
        self.optimizer = {**self.optimizer, "init_args": arguments}
        self.hparams["optimizer"] = self.optimizer

    @override
    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            raise UserError(
                "the network is given images as they are read (uint8), not prepared",
                "give the Trainer the data module, not its loaders; without a Trainer, call "
                "datamodule.prepare(images) first, or predict_images",
            )
        logits: Tensor = self.network(images)
        return logits

    @override
    def train(self, mode: bool = True) -> "ImageClassifier":  # torch's
        super().train(mode)
        if self.freeze_part == "backbone":
            # batch norm must neither use nor update batch statistics; see PyTorch issue 66073
            transfer.set_eval_but_head(self.network)
        return self

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._run_seed = run_seed()
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            self.adapt_to(data)
            if stage == "fit":
                fit_whitening(self.network, data)
        if stage == "fit" and self.class_weights == "balanced":
            self._balance(data)
        transfer.silence_eval_mode_warning(frozen=self.freeze_part == "backbone")

    def adapt_to(self, data: ImageData) -> None:
        """Settle how images are prepared, by what the data is and what the network takes.

        What a checkpoint says of it holds. Images of another size than the checkpoint's are taken
        only if someone asked for that size.

        Raises:
            UserError: The network cannot take the images, or they are not those that it was trained
                on.
        """
        if self.class_names is None:
            if len(data.class_names) != self.num_classes:
                raise UserError(
                    f"the network gives {self.num_classes} logits, the data holds "
                    f"{_shorten(data.class_names)}",
                    "give the network as many outputs as its argument num_classes says",
                )
            self.class_names = tuple(data.class_names)
        if self.class_names != tuple(data.class_names):
            raise UserError(
                f"the classifier tells {_shorten(self.class_names)} apart, the data holds "
                f"{_shorten(data.class_names)}",
                "use the data set it was trained on",
            )
        preprocessing = data.preprocessing = self._settle_preprocessing(data)
        size = preprocessing.size
        height, width = (size, size) if size else data.image_shape[1:]
        self.example_input_array = torch.zeros(2, data.image_shape[0], height, width)

    def _settle_preprocessing(self, data: ImageData) -> Preprocessing:
        known, before, shape = self.preprocessing, self.image_shape, data.image_shape
        if known is not None and before in (None, tuple(shape)):
            return known
        if known is not None and before is not None:
            told = f"images are {_times(shape)}, those of the checkpoint are {_times(before)}"
            if shape[0] != before[0]:
                raise UserError(told, f"give the data {before[0]} channel(s)")
            if data.shape_is_guessed:
                raise UserError(told, f"give the data module image_size={before[1]}")
            say(told)
        wanted = self.hparams.get("in_channels")
        if isinstance(wanted, int) and wanted != shape[0]:
            raise UserError(
                f"the network takes images of {wanted} channel(s), the data's have {shape[0]}",
                f"build it with in_channels={shape[0]}",
            )
        self.image_shape = shape
        chosen = transfer.choose_preprocessing(
            self.network,
            shape,
            known or Preprocessing(data.mean, data.std),
            None if known else self._weights_preprocessing,
            self.image_size,
        )
        self.preprocessing = replace(chosen, channels_last=self.channels_last)
        return self.preprocessing

    def _balance(self, data: ImageData | None) -> None:
        if data is None:
            raise UserError(
                "class_weights: balanced needs a data module", "give one to fit, or the weights"
            )
        weights = weighting.balanced_weights(data.class_counts(), data.class_names)
        self.loss_weights = weights.to(self.device)

    def logits(self, batch: ImageBatch) -> Tensor:
        """Logits N×K of a batch of prepared images, or of cached features of the backbone."""
        logits: Tensor = (self.network.head if batch.is_features else self)(batch.images)
        return logits

    def test_logits(self, images: Tensor) -> Tensor:
        """Logits N×K of prepared images, averaged over the views of `test_augment`."""
        return average_views(self, images, self.test_augment)

    @override
    def on_train_batch_start(self, batch: ImageBatch, batch_idx: int) -> None:
        # what dropout and the like draw depends on the place alone, so a resumed run draws the same
        trainer = self.trainer
        place = (self._run_seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        seed_torch(self.device, "step", *place)
        # the schedule has moved on when an epoch that steps or time cut off is logged
        self._window.rate = trainer.optimizers[0].param_groups[0]["lr"]

    @override
    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        if self.network.auxiliary_weight and self.freeze_part is None:
            logits, auxiliary = self.network.auxiliary_logits(batch.images)
        else:
            logits, auxiliary = self.logits(batch), []
        targets = batch.labels if batch.targets is None else batch.targets
        loss = training_loss(
            logits,
            auxiliary,
            targets,
            auxiliary_weight=self.network.auxiliary_weight,
            label_smoothing=self.label_smoothing,
            class_weights=cast(Tensor | None, self.loss_weights),
        )
        # of a mixed image, the class with the largest share counts as its own
        labels = batch.labels if batch.targets is None else batch.targets.argmax(1)
        self._window.add(loss, logits.detach().argmax(1), labels)
        trainer = self.trainer
        is_due = ends_step(trainer, batch_idx) and is_logged(trainer, trainer.global_step + 1)
        if is_due or trainer.is_last_batch:  # an epoch's end is told by callbacks before the hook
            self._log_window(trainer.global_step)
        return self._as_part(loss, batch_idx)

    def _as_part(self, loss: Tensor, batch_idx: int) -> Tensor:
        """The mean loss of a batch, as what it is of that of its step."""
        trainer = self.trainer
        if (parts := trainer.accumulate_grad_batches) == 1:
            return loss
        loader, num_batches = trainer.train_dataloader, trainer.num_training_batches
        scale = scale_of_part(loader, batch_idx, parts, num_batches)
        return loss if scale == 1 else loss * scale

    def _log_window(self, step: int) -> None:
        """Log the means over all images since the last logging.

        Straight to the loggers: Lightning would do it after the checkpoint of this step is written,
        and what is logged at that step would be lost if the run ended between the two.

        Args:
            step: The optimizer step they belong to, counted from 0.
        """
        loss, accuracy = self._window.take_means(self.trainer)
        metrics = {"train/loss": loss, "train/accuracy": accuracy}
        tell(self.trainer, metrics)
        metrics["lr"] = self._window.rate
        for logger in self.trainer.loggers:
            logger.log_metrics({**metrics, "epoch": self.current_epoch}, step)

    @override
    def on_train_epoch_end(self) -> None:
        if not self._window.is_empty:  # an epoch that max_steps or max_time cut off
            self._log_window(self.trainer.global_step - 1)

    @override
    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.val_metrics.update(self.logits(batch), batch.labels)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val", self.val_metrics, prog_bar=True)

    @override
    def test_step(  # type: ignore[override]  # Lightning passes any result on to callbacks
        self, batch: ImageBatch, batch_idx: int
    ) -> StepOutput:
        logits = self.test_logits(batch.images)
        self.test_metrics.update(logits, batch.labels)
        return StepOutput(logits.float().softmax(1), batch.labels, batch.indices)

    @override
    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test", self.test_metrics)

    def _log_evaluation(
        self, stage: str, metrics: EvaluationMetrics, *, prog_bar: bool = False
    ) -> None:
        names = self.class_names or [str(label) for label in range(self.num_classes)]
        for name, value in metrics.take(names).items():
            # reduced over processes already; Lightning warns unless told to do it again
            self.log(f"{stage}/{name}", value, prog_bar=prog_bar, sync_dist=True)

    @override
    def predict_step(self, batch: ImageBatch, batch_idx: int) -> StepOutput:
        probabilities = self.test_logits(batch.images).float().softmax(1)
        return StepOutput(probabilities, batch.labels, batch.indices)

    def predict_images(
        self,
        images: Tensor | Sequence[str | Path | Image.Image],
        *,
        batch_size: int = 256,
    ) -> Predictions:
        """Classify images, prepared and looked at exactly as `predict` does.

        Args:
            images: N×C×H×W uint8 of any size, or PIL images or paths of image files.
            batch_size: Images per forward pass.

        Raises:
            UserError: A file cannot be read, or the classifier has seen no data yet.
            ValueError: A tensor has another type or shape, or a sequence holds tensors or arrays.
        """
        if self.preprocessing is None or self.image_shape is None or self.class_names is None:
            raise UserError(
                "this classifier does not know its images yet",
                "train it, load it from a checkpoint, or call adapt_to(datamodule)",
            )
        channels, *size = self.image_shape
        fitted = [fit_image(image, *size) for image in load_images(images, channels)]
        chunks = []
        with evaluating(self):
            for start in range(0, len(fitted), batch_size):
                prepared = self.preprocessing(
                    torch.stack(fitted[start : start + batch_size]).to(self.device)
                )
                chunks.append(self.test_logits(prepared).float().softmax(1).cpu())
        probabilities = torch.cat(chunks) if chunks else torch.empty(0, self.num_classes)
        return Predictions(
            [self.class_names[label] for label in probabilities.argmax(1).tolist()], probabilities
        )

    @override
    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = optimization.build_optimizer(self.optimizer, self)
        by_step = self.schedule_interval == "step"
        length = optimization.run_length(self.trainer, by_step=by_step)
        scheduler = optimization.build_schedule(self.schedule, optimizer, length)
        if self._resumed is not None:
            self._resumed.go_on_with(
                scheduler, self.optimizer, self.schedule, self.schedule_interval
            )
            self._resumed = None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": self.schedule_interval},
        }

    @override
    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: Any, *args: Any, **kwargs: Any
    ) -> "ImageClassifier":
        path = Path(checkpoint_path)
        content = Content(load_checkpoint(path), path)
        # Lightning would build whatever class a checkpoint tells it to
        content.check_ours()
        kwargs["weights_only"] = True
        classifier = super().load_from_checkpoint(path, *args, **kwargs)
        content.check_kinds(classifier.state_dict())
        return classifier

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = getattr(self._trainer, "datamodule", None)
        ours = {
            "format": CHECKPOINT_FORMAT,
            "classifier": _class_path(self),
            "data": None if data is None else _class_path(data),
            "class_names": list(self.class_names or ()),
            "image_shape": list(self.image_shape or ()),
            "preprocessing": self.preprocessing and self.preprocessing.as_dict(),
            "weights": self._weights_origin,
            "window": self._window.gather(self._trainer),
            "optimization": {
                "optimizer": self.optimizer,
                "schedule": self.schedule,
                "schedule_interval": self.schedule_interval,
            },
        }
        checkpoint[CHECKPOINT_KEY] = as_plain(ours)
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            if key in checkpoint:
                checkpoint[key] = plain_arguments(checkpoint[key])
        if "weights" in checkpoint.get("hyper_parameters", {}):
            # they are in this checkpoint: loading it must not ask for their origin again
            checkpoint["hyper_parameters"]["weights"] = None

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        known = checkpoint.get(CHECKPOINT_KEY)
        if known is None:
            raise UserError("the checkpoint was not written by cnn-lightning", "use one that was")
        self.class_names = tuple(known["class_names"]) or None
        self.image_shape = cast(tuple[int, int, int], tuple(known["image_shape"])) or None
        stored = known["preprocessing"]
        self.preprocessing = stored and replace(
            Preprocessing.from_dict(stored), channels_last=self.channels_last
        )
        self._window.restore(known["window"], self._trainer)
        self._weights_origin = known["weights"]
        data = getattr(self._trainer, "datamodule", None)
        if data is not None:
            self.adapt_to(data)
        if self._trainer is not None and self._trainer.state.fn == "fit":
            before, *_ = optimization.stored_optimization(checkpoint)
            optimization.keep_new_arguments(checkpoint, before, self.optimizer, self)
            self._resumed = ResumedSchedule(checkpoint)  # the run's length is not known yet


def _count_classes(network: Network) -> int:
    sizes = [p.shape[0] for p in network.head.parameters() if p.ndim > 1]
    return int(sizes[-1])


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _class_path(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{len(names)} classes ({shown}{', …' if len(names) > 4 else ''})"
