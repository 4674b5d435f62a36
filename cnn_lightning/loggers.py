"""Where numbers go: TensorBoard's event files, and the same as one table."""

import csv
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from typing_extensions import override

from cnn_lightning.analysis.activations import evaluating
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.errors import UserError
from cnn_lightning.files import write_text
from cnn_lightning.memory import memory_kept
from cnn_lightning.runs import RunFolder

# before the name of a layer
_OF_LAYERS = ("activations/", "gradient_norm/")


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
        self._folder = folder
        self._at_step = at_step
        self._is_new = resumed_at is None and at_step is None
        # of the checkpoint that the run goes on from; TensorBoard drops it with what came later
        tested = _Key(resumed_at or 0, is_evaluation=True)
        self._tested = _read(folder.metrics).get(tested, {}) if resumed_at else {}
        self._resumed_at = resumed_at

    @property
    def folder(self) -> RunFolder:
        """The run folder; it may be another version until something is logged."""
        return self._folder

    @folder.setter
    def folder(self, folder: RunFolder) -> None:
        self._folder, self._version = folder, folder.path.name

    @property
    @override
    def experiment(self) -> Any:
        is_new = self._experiment is None
        experiment = super().experiment
        if is_new and self._experiment is not None:
            _name_failures(self._experiment)
            for name, value in self._tested.items():
                self._experiment.add_scalar(name, float(value), self._resumed_at)
        return experiment

    @override
    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in `log_settings`, the data's included."""

    @rank_zero_only
    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Put a run's settings beside its `val/accuracy` and `val/loss` in the HPARAMS tab.

        Args:
            settings: As in `config.yaml`; those that are `None` are left out.
        """
        if self._is_new:
            metrics = dict.fromkeys(("val/accuracy", "val/loss"), 0.0)  # their names alone count
            writer = self.experiment._get_file_writer()
            for summary in hparams(_flatten(settings), metrics):  # type: ignore[no-untyped-call]
                writer.add_summary(summary)

    @override
    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Draw the network; a classifier that does not know its images yet is passed over."""
        if not self._is_new or not isinstance(model, ImageClassifier):
            return
        example = model.example_input_array
        if isinstance(example, Tensor):
            with (
                evaluating(model.network),
                warnings.catch_warnings(),
                memory_kept(model.device, keep=False),  # a trace leaves many small pieces
            ):
                # TensorBoard's own way to a graph; torch advises against it, and against sizes that
                # the trace takes for constants
                warnings.simplefilter("ignore")
                example = example[:1].to(model.device)
                # traced here, once: TensorBoard would trace it again to compare the two
                traced = torch.jit.trace(model.network, example, check_trace=False)  # type: ignore[no-untyped-call]
                self.experiment.add_graph(traced, example)

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, self.place(step or 0))

    def place(self, step: int) -> int:
        """The step at which something is logged: `step`, unless all is logged at one."""
        return step if self._at_step is None else self._at_step

    @override
    @rank_zero_only
    def save(self) -> None:
        # the parent writes hparams.yaml here; config.yaml says it all
        if self._experiment is not None:
            self.experiment.flush()


class _Key(NamedTuple):
    """Which row of the table, in the order of the file."""

    step: int
    is_evaluation: bool


class MetricsTable(Logger):
    """`metrics.csv`: a row per optimizer step at which something was logged, a column per metric.

    An evaluation of a checkpoint has a row of its own, without an epoch, after that of the
    training's step of the same number: a checkpoint counts the steps done, which is the number of
    the step that follows.

    Args:
        folder: The run folder.
        resumed_at: Optimizer steps done when the run goes on; later rows are dropped, but
            not that of an evaluation of its checkpoint.
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
            # the number of steps done is that of the next step, and of what this checkpoint got
            own = _Key(resumed_at, is_evaluation=True)
            self._rows = {
                key: row for key, row in self._rows.items() if key.step < resumed_at or key == own
            }
        self._is_saved = True

    @property
    def folder(self) -> RunFolder:
        """The run folder; it may be another until something is logged."""
        return self._folder

    @folder.setter
    def folder(self, folder: RunFolder) -> None:
        if folder != self._folder:
            self._folder, self._rows = folder, _read(folder.metrics)

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
        is_evaluation = self._at_step is not None
        key = _Key(step or 0 if self._at_step is None else self._at_step, is_evaluation)
        row = self._rows.setdefault(key, {})
        row.update({name: value for name, value in metrics.items() if name != "epoch"})
        # an evaluation's epoch is 0, whatever the checkpoint's
        if "epoch" in metrics and not is_evaluation:
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
        known = dict.fromkeys(name for row in self._rows.values() for name in row)
        names = sorted((name for name in known if name != "epoch"), key=_column)
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": key.step, **row} for key, row in sorted(self._rows.items()))
        write_text(self._folder.metrics, text.getvalue())
        self._is_saved = True

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def _column(name: str) -> str:
    """Where a column stands: layers in the order in which they were logged, the network's."""
    return name.rpartition("/")[0] if name.startswith(_OF_LAYERS) else name


def _name_failures(writer: Any) -> None:
    """Let what TensorBoard's writer raises on a full disk name the file, which it does not."""
    file = writer._get_file_writer().event_writer._general_file_writer
    write = file.write

    def named(content: bytes) -> None:
        try:
            write(content)
        except OSError as error:
            error.filename = os.fsdecode(file.filename)
            raise

    file.write = named


def _flatten(settings: Any, prefix: str = "") -> dict[str, bool | float | str]:
    """Nested settings as one level, `model/activation`, of what TensorBoard can show."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        plain = isinstance(settings, (bool, int, float, str))
        return {prefix: settings if plain else str(settings)}
    return {
        key: value
        for name, branch in settings.items()
        for key, value in _flatten(branch, _join(prefix, str(name))).items()
    }


def _join(prefix: str, name: str) -> str:
    """`model` and `class_path` are `model`; `model` and `init_args` too, for what is in it."""
    if prefix and name in ("class_path", "init_args"):
        return prefix
    return f"{prefix}/{name}" if prefix else name


def _read(path: Path) -> dict[_Key, dict[str, Any]]:
    if not path.is_file():
        return {}
    rows: dict[_Key, dict[str, Any]] = {}
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            for line in reader:
                step = int(line.pop("step"))
                row = {name: value for name, value in line.items() if value}
                # a validation within training has an epoch
                is_evaluation = "epoch" not in row and any(map(_is_evaluated, row))
                rows[_Key(step, is_evaluation)] = row
        except (TypeError, ValueError, KeyError, csv.Error) as error:
            raise UserError(
                f"{path}, line {reader.line_num} is no row of metrics",
                "use a copy that is whole, or move it away",
            ) from error
    return rows


def _is_evaluated(name: str) -> bool:
    return name.startswith(("val/", "test/"))
