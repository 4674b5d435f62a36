"""What `predict` leaves: a table of all images and a picture of some."""

import csv
import io
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from cnn_lightning.callbacks.gathering import GatheredOutputs
from cnn_lightning.callbacks.prediction_grid import NUM_PICTURED, evenly
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.interfaces import StepOutput
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.figures import draw_predictions, to_png
from cnn_lightning.files import write_bytes, write_text
from cnn_lightning.runs import RunFolder

NUM_RANKED = 3


class PredictionFiles(L.Callback):
    """Writes `predictions.csv` and `figures/predictions.png` into the run folder.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._outputs = GatheredOutputs()

    @override
    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._outputs.clear()

    @override
    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._outputs.add(outputs)

    @override
    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = self._outputs.gather()
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        if found is not None and isinstance(pl_module, ImageClassifier):
            self._write(pl_module, data, found)

    def _write(self, classifier: ImageClassifier, data: ImageDataModule, found: StepOutput) -> None:
        names = list(classifier.class_names or data.class_names)
        files = data.image_names("test")
        ranked = found.probabilities.topk(min(NUM_RANKED, len(names)), dim=1)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = ["image", "true", "predicted", "probability"]
        for place in range(1, ranked.indices.shape[1] + 1):
            columns += [f"top{place}", f"top{place}_probability"]
        writer.writerow(columns)
        for row, (index, label) in enumerate(
            zip(found.indices.tolist(), found.labels.tolist(), strict=True)
        ):
            classes, shares = ranked.indices[row].tolist(), ranked.values[row].tolist()
            cells: list[str] = [files[index] if files is not None else str(index), names[label]]
            cells += [names[classes[0]], f"{shares[0]:.6f}"]
            for class_index, share in zip(classes, shares, strict=True):
                cells += [names[class_index], f"{share:.6f}"]
            writer.writerow(cells)
        table = self.folder.path / "predictions.csv"
        write_text(table, text.getvalue())
        say(str(table))
        shown = evenly(torch.arange(len(found.indices)), NUM_PICTURED)
        figure = draw_predictions(
            data.load("test")[0][found.indices[shown]],
            [names[label] for label in ranked.indices[shown, 0].tolist()],
            ranked.values[shown, 0].tolist(),
            [names[label] for label in found.labels[shown].tolist()],
        )
        picture = self.folder.figures / "predictions.png"
        write_bytes(picture, to_png(figure))
        say(str(picture))
