"""Where numbers go: TensorBoard's event files, and the same as one table."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from typing_extensions import override

from cnn_lightning.files import write_text
from cnn_lightning.runs import RunFolder


class EventFiles(TensorBoardLogger):
    """TensorBoard's event files of a run folder, without a gap or an overlap after a resume.

    Args:
        folder: The run folder.
        resumed_at: Optimizer steps done when the run goes on; what an earlier process logged from
            there on is dropped by TensorBoard.
        at_step: Log everything at this step (an evaluation of a checkpoint).
    """

    def __init__(
        self, folder: RunFolder, *, resumed_at: int | None = None, at_step: int | None = None
    ) -> None:
        super().__init__(
            folder.log_dir,
            name=folder.name,
            version=folder.path.name,
            default_hp_metric=False,
            purge_step=resumed_at,
        )
        self._at_step = at_step

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, step if self._at_step is None else self._at_step)

    @rank_zero_only
    def log_image(self, tag: str, pixels: Tensor, step: int) -> None:
        """Show a picture under a tag.

        Args:
            tag: Its name in TensorBoard.
            pixels: 3×H×W uint8.
            step: The optimizer step it belongs to, unless all is logged at one step.
        """
        at = step if self._at_step is None else self._at_step
        self.experiment.add_image(tag, pixels, at)

    @override
    @rank_zero_only
    def save(self) -> None:
        # the parent writes hparams.yaml here; config.yaml says it all
        if self._experiment is not None:
            self.experiment.flush()


class MetricsTable(Logger):
    """`metrics.csv`: a row per optimizer step at which something was logged, a column per metric.

    Args:
        folder: The run folder.
        resumed_at: Optimizer steps done when the run goes on; later rows are dropped.
        at_step: Log everything at this step (an evaluation of a checkpoint).
    """

    def __init__(
        self, folder: RunFolder, *, resumed_at: int | None = None, at_step: int | None = None
    ) -> None:
        super().__init__()
        self._folder = folder
        self._at_step = at_step
        self._rows = _read(folder.metrics)
        if resumed_at is not None:
            self._rows = {step: row for step, row in self._rows.items() if step < resumed_at}
        self._is_saved = True

    @property
    @override
    def name(self) -> str:
        return self._folder.name

    @property
    @override
    def version(self) -> str:
        return self._folder.path.name

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        place = self._at_step if self._at_step is not None else (step or 0)
        row = self._rows.setdefault(place, {})
        row.update({name: value for name, value in metrics.items() if name != "epoch"})
        if "epoch" in metrics:
            row["epoch"] = int(metrics["epoch"])
        self._is_saved = False

    @override
    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in config.yaml."""

    @override
    @rank_zero_only
    def save(self) -> None:
        if self._is_saved:
            return
        names = sorted({name for row in self._rows.values() for name in row} - {"epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in sorted(self._rows.items()))
        write_text(self._folder.metrics, text.getvalue())
        self._is_saved = True

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def _read(path: Path) -> dict[int, dict[str, Any]]:
    if not path.is_file():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        int(row["step"]): {key: value for key, value in row.items() if key != "step" and value}
        for row in rows
    }
