"""What `test` leaves besides numbers: what was got wrong, and how sure the network was of it."""

from pathlib import Path
from typing import Any

import lightning as L
from matplotlib.figure import Figure
from typing_extensions import override

from cnn_lightning.analysis.calibration import expected_calibration_error, reliability_bins
from cnn_lightning.analysis.mistakes import confusion_counts, worst_mistakes
from cnn_lightning.callbacks.gathering import GatheredOutputs
from cnn_lightning.callbacks.prediction_grid import NUM_PICTURED
from cnn_lightning.callbacks.showing import show_picture
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.interfaces import StepOutput
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.figures import (
    Sheet,
    draw_class_accuracy,
    draw_confusion_matrix,
    draw_predictions,
    draw_reliability,
)
from cnn_lightning.runs import RunFolder


class EvaluationFigures(L.Callback):
    """Draws the confusion matrix, the accuracy by class, the worst mistakes and the calibration.

    After `test`, as `figures/test_confusion_matrix.png`, `test_class_accuracy.png`,
    `test_worst_mistakes.png` and `test_reliability.png`, and in TensorBoard as
    `test/confusion_matrix` and so on.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._outputs = GatheredOutputs(StepOutput)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._outputs.clear()

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(outputs, StepOutput):
            self._outputs.add(outputs)

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = self._outputs.gather()
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        if not isinstance(pl_module, ImageClassifier) or not isinstance(data, ImageDataModule):
            return
        if found is None:
            say("no figures of the test: test_step returned no StepOutput")
            return
        names = list(pl_module.class_names or data.class_names)
        counts = confusion_counts(found.probabilities, found.labels)
        self._show(trainer, "confusion_matrix", draw_confusion_matrix(counts, names))
        self._show(
            trainer,
            "class_accuracy",
            draw_class_accuracy(counts.diagonal(), counts.sum(1), names),
        )
        self._show_mistakes(trainer, data, found, names)
        bins = reliability_bins(found.probabilities, found.labels)
        error = float(expected_calibration_error(bins))
        self._show(trainer, "reliability", draw_reliability(*bins, error))

    def _show_mistakes(
        self, trainer: L.Trainer, data: ImageDataModule, found: StepOutput, names: list[str]
    ) -> None:
        worst = worst_mistakes(found.probabilities, found.labels, NUM_PICTURED)
        if len(worst) == 0:
            # not that of an earlier test
            self._path("worst_mistakes").unlink(missing_ok=True)
            say(
                f"no picture of mistakes: all {len(found.labels):,} images are classified correctly"
            )
            return
        confidences, predicted = found.probabilities[worst].max(1)
        figure = draw_predictions(
            data.load("test")[0][found.indices[worst]],
            [names[label] for label in predicted.tolist()],
            confidences.tolist(),
            [names[label] for label in found.labels[worst].tolist()],
        )
        self._show(trainer, "worst_mistakes", figure)

    def _path(self, name: str) -> Path:
        return self.folder.figures / f"test_{name}.png"

    def _show(self, trainer: L.Trainer, name: str, picture: Figure | Sheet) -> None:
        path = self._path(name)
        show_picture(trainer, f"test/{name}", picture, step=trainer.global_step, path=path)
        say(str(path))
