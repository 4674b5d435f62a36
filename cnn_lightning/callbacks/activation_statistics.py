"""How every layer fares: mean, spread, dead and saturated units, gradients."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from cnn_lightning.analysis.health import LayerStatistics, measure_layers
from cnn_lightning.analysis.layers import ACTIVATIONS, WITH_KERNELS, named_layers, select_layers
from cnn_lightning.callbacks.epoch_pictures import check_numbers, images_at_once, is_trial, rests
from cnn_lightning.callbacks.prediction_grid import evenly
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.data import ImageDataModule

# images: more are hardly quicker, and with large images take much memory
_MAX_AT_ONCE = 25


class ActivationStatistics(L.Callback):
    """Logs statistics of layers' outputs over validation images, and of their gradients.

    After an epoch, as scalars `activations/<what>/<layer>`:

    - `mean` and `std` of all values;
    - `dead`, of ReLU layers: the share 0..1 of units that are above 0 for none of the images; a
      convolution's unit is a channel, since all its places share one kernel;
    - `saturated`, of Tanh layers: the share 0..1 of values beyond ±0.97, where less than 6 % of a
      gradient comes through;

    and `gradient_norm/<layer>`: the L2 norm of the gradient of a layer's parameters at the epoch's
    last optimizer step, before clipping; not of an epoch that time cut off. In TensorBoard also
    histograms, `activations/<layer>`. The untrained network is measured at the first step. With a
    frozen backbone once.

    Args:
        layers: `null` takes every activation function; otherwise as for `FeatureMaps`.
        every_n_epochs: 0 = off.
        max_images: Validation images to look at, evenly spread.

    Raises:
        UserError: A number is too small, or a pattern matches no layer.

    Example:
        >>> statistics = ActivationStatistics(layers="ReLU", max_images=100)
        >>> trainer = L.Trainer(callbacks=[statistics], logger=False, enable_checkpointing=False)
        >>> statistics in trainer.callbacks
        True
    """

    def __init__(
        self,
        layers: Sequence[str] | str | None = None,
        every_n_epochs: int = 1,
        max_images: int = 500,
    ) -> None:
        check_numbers(every_n_epochs, max_images=max_images)
        self.layers = layers
        self.every_n_epochs = every_n_epochs
        self.max_images = max_images
        self._gradient_norms: dict[str, float] = {}

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_epochs != 0 and isinstance(pl_module, ImageClassifier):
            self._select(pl_module.network)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._log(trainer, pl_module)

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        is_last = trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps
        if is_last and self._is_due(trainer) and trainer.is_global_zero:
            gradients = {
                name: [p.grad for p in layer.parameters() if p.grad is not None]
                for name, layer in named_layers(pl_module.network).items()  # type: ignore[arg-type]
                if isinstance(layer, WITH_KERNELS)
            }
            self._gradient_norms = _norms(gradients)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._is_due(trainer):
            self._log(trainer, pl_module)

    def _is_due(self, trainer: L.Trainer) -> bool:
        every = self.every_n_epochs
        return bool(every) and (trainer.current_epoch + 1) % every == 0

    def _select(self, network: torch.nn.Module) -> dict[str, torch.nn.Module]:
        if self.layers is not None:
            return select_layers(network, self.layers)
        layers = named_layers(network)
        kinds = next((kinds for kinds in (ACTIVATIONS, WITH_KERNELS) if _any_of(layers, kinds)), ())
        return {name: layer for name, layer in layers.items() if isinstance(layer, kinds)}

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        if not self.every_n_epochs or is_trial(trainer) or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, ImageClassifier) or not isinstance(data, ImageDataModule):
            return
        step = max(trainer.global_step - 1, 0)
        numbers = {f"gradient_norm/{n}": norm for n, norm in self._gradient_norms.items()}
        self._gradient_norms = {}
        if trainer.global_step == 0 or not rests(pl_module):
            found = self._measure(trainer, pl_module, data)
            numbers.update(_numbers(found))
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _log_histograms(logger.experiment, found, step)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step)

    def _measure(
        self, trainer: L.Trainer, classifier: ImageClassifier, data: ImageDataModule
    ) -> dict[str, LayerStatistics]:
        images = data.load("train")[0]
        chosen = evenly(data.stage_indices("val"), self.max_images)
        at_once = min(data.eval_batch_size, _MAX_AT_ONCE)
        if rests(classifier) and classifier.device.type == "cpu":
            # a step of the head alone takes less memory than a few images in all layers
            at_once = min(at_once, images_at_once(classifier))
        return measure_layers(
            classifier.network,
            self._select(classifier.network),
            (
                data.prepare(images[part].to(classifier.device))
                for part in torch.split(chosen, at_once)
            ),
            trainer.precision_plugin.forward_context(),
        )


def _norms(gradients: dict[str, list[Tensor]]) -> dict[str, float]:
    """The L2 norm of each layer's gradients, of those that have any; waits for a GPU once."""
    every = [one for some in gradients.values() for one in some]
    if not every:
        return {}
    found = iter(torch.stack(torch._foreach_norm(every)).tolist())
    return {
        name: math.hypot(*(next(found) for _ in some)) for name, some in gradients.items() if some
    }


def _any_of(layers: dict[str, torch.nn.Module], kinds: tuple[type, ...]) -> bool:
    return any(isinstance(layer, kinds) for layer in layers.values())


def _numbers(found: dict[str, LayerStatistics]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, layer in found.items():
        numbers[f"activations/mean/{name}"] = layer.mean
        numbers[f"activations/std/{name}"] = layer.std
        if layer.dead is not None:
            numbers[f"activations/dead/{name}"] = layer.dead
        if layer.saturated is not None:
            numbers[f"activations/saturated/{name}"] = layer.saturated
    return numbers


def _log_histograms(writer: Any, found: dict[str, LayerStatistics], step: int) -> None:
    for name, layer in found.items():
        writer.add_histogram_raw(
            f"activations/{name}",
            min=layer.lowest,
            max=layer.highest,
            num=layer.count,
            sum=layer.total,
            sum_squares=layer.squares,
            bucket_limits=layer.edges[1:].tolist(),
            bucket_counts=layer.bins.tolist(),
            global_step=step,
        )
