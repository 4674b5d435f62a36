"""What `predict` leaves: a table of all images and a picture of some."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.callbacks.gathering import GatheredOutputs, gather_to_first
from cnn_lightning.callbacks.prediction_grid import NUM_PICTURED, evenly
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.interfaces import StepOutput
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule, UnlabelledDataModule
from cnn_lightning.data.unlabelled import NO_LABEL, Unread
from cnn_lightning.errors import UserError
from cnn_lightning.figures import draw_predictions, to_png
from cnn_lightning.files import atomic_writer, write_bytes
from cnn_lightning.runs import RunFolder

NUM_RANKED = 3
_MAX_TOLD = 10


class Ranked(NamedTuple):
    """The most probable classes of N images, T each.

    Attributes:
        probabilities: N×T float32, falling.
        classes: N×T int64.
        labels: N int64, -1 where unknown.
        indices: N int64, each image's place in the data.
    """

    probabilities: Tensor
    classes: Tensor
    labels: Tensor
    indices: Tensor


class PredictionFiles(L.Callback):
    """Writes `predictions.csv` and `figures/predictions.png` into the run folder.

    And, of files that could not be read, `predictions_unread.csv`.

    Args:
        folder: The run folder.
        num_ranked: Classes named for each image, the most probable first; all if there are fewer.
    """

    def __init__(self, folder: RunFolder, num_ranked: int = NUM_RANKED) -> None:
        if num_ranked < 1:
            raise UserError(f"top_k is {num_ranked}", "give at least 1")
        self.folder = folder
        self.num_ranked = num_ranked
        self._outputs = GatheredOutputs(Ranked)

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
        if isinstance(outputs, StepOutput):
            # not all of it: a million images of a thousand classes fill a memory
            count = min(self.num_ranked, outputs.probabilities.shape[1])
            best = outputs.probabilities.topk(count, dim=1)
            self._outputs.add(Ranked(best.values, best.indices, outputs.labels, outputs.indices))

    @override
    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = self._outputs.gather()
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        files = isinstance(data, UnlabelledDataModule)
        gathered = gather_to_first(data.unread) if files else []
        if not trainer.is_global_zero or not isinstance(pl_module, ImageClassifier):
            return
        if found is not None:
            self._write(pl_module, data, found)
        if files:
            unread = [one for part in gathered for one in part]
            self._tell_unread(unread, 0 if found is None else len(found.indices))

    def _write(self, classifier: ImageClassifier, data: ImageDataModule, found: Ranked) -> None:
        names = list(classifier.class_names or data.class_names)
        table = self.folder.path / "predictions.csv"
        columns = ["image", "true", "predicted", "probability"]
        for place in range(1, found.classes.shape[1] + 1):
            columns += [f"top{place}", f"top{place}_probability"]
        _write_table(table, columns, _rows(found, names, data.image_names("test")))
        say(str(table))
        shown = evenly(torch.arange(len(found.indices)), NUM_PICTURED)
        labels = found.labels[shown].tolist()
        figure = draw_predictions(
            data.stored_images("test", found.indices[shown]),
            [names[label] for label in found.classes[shown, 0].tolist()],
            found.probabilities[shown, 0].tolist(),
            None if NO_LABEL in labels else [names[label] for label in labels],
        )
        picture = self.folder.figures / "predictions.png"
        write_bytes(picture, to_png(figure))
        say(str(picture))

    def _tell_unread(self, unread: Sequence[Unread], num_read: int) -> None:
        """Say which files got no prediction, and write all of them down.

        Raises:
            UserError: No file got one.
        """
        table = self.folder.path / "predictions_unread.csv"
        if not unread:
            table.unlink(missing_ok=True)  # that of an earlier prediction
            return
        _write_table(table, ["path", "reason"], unread)
        for one in unread[:_MAX_TOLD]:
            say(f"not read: {one.reason}")
        more = len(unread) - _MAX_TOLD
        say(f"not read: {more:,} more, all in {table}" if more > 0 else str(table))
        if num_read == 0:
            raise UserError(
                f"none of {len(unread):,} files could be read", f"{table} says why of each"
            )
        say(f"{num_read:,} images predicted, {len(unread):,} files not read")


def _rows(found: Ranked, names: Sequence[str], files: Sequence[str] | None) -> Any:
    for probabilities, classes, label, index in zip(
        *(column.tolist() for column in found), strict=True
    ):
        image = str(index) if files is None else files[index]
        row = [image, "" if label == NO_LABEL else names[label]]
        row += [names[classes[0]], f"{probabilities[0]:.6f}"]
        for class_index, share in zip(classes, probabilities, strict=True):
            row += [names[class_index], f"{share:.6f}"]
        yield row


def _write_table(path: Path, columns: Sequence[str], rows: Any) -> None:
    # names of files need not be text: what is none is written as \udc.. and the table stays UTF-8
    with atomic_writer(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        text.flush()
        text.detach()
