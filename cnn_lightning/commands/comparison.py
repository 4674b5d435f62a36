"""The table of `compare`: what runs reached, how fast, and the settings in which they differ."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn_lightning.history import History

# where the files of a run go says nothing of what was learnt
_IGNORED = ("run", "log_dir", "ckpt_path", "default_root_dir", "save_dir", "dirpath", "filename")
# thousandths between thresholds, and how many thresholds at most
_STEPS = (200, 100, 50, 20, 10, 5, 2, 1)
_MOST = 4
NOT_REACHED, UNKNOWN = "not reached", "–"


@dataclass(frozen=True)
class Row:
    """One quantity of all runs.

    Args:
        name: The quantity.
        values: One per run: a number, a text, or `None` where it is unknown.
        form: How a number is shown to people, as for `format`.
        is_setting: Whether it was chosen, not measured.
    """

    name: str
    values: list[float | str | None]
    form: str = ""
    is_setting: bool = False

    def shown(self) -> list[str]:
        """The values as people read them."""
        return [
            UNKNOWN
            if value is None
            else value
            if isinstance(value, str)
            else f"{value:{self.form}}"
            for value in self.values
        ]


def name_runs(histories: Sequence[History]) -> list[str]:
    """The shortest of run, run/version and path that tells all of them apart."""
    folders = [history.folder for history in histories]
    for names in (
        [folder.name for folder in folders],
        [f"{folder.name}/{folder.path.name}" for folder in folders],
    ):
        if len(set(names)) == len(names):
            return names
    return [str(folder.path) for folder in folders]


def choose_thresholds(histories: Sequence[History]) -> list[float]:
    """Round accuracies that all runs reach, but not all in the same epoch.

    Returns:
        1 to 4 numbers in 0..1, ascending: as round as can be had at least twice, or else once. If
        no such number tells the runs apart, the roundest that all reach; none if a run never got
        one image in a thousand right.
    """
    top = 1000 * min(history.best[1] for history in histories) + 1e-3
    reached = [[n * step / 1000 for n in range(1, int(top / step) + 1)] for step in _STEPS]
    telling = [
        [t for t in thresholds if len({history.epochs_to(t) for history in histories}) > 1]
        for thresholds in reached
    ]
    for enough in (2, 1):
        for found in telling:
            if len(found) >= enough:
                # the first, the last, and others between them
                places = {round(i * (len(found) - 1) / (_MOST - 1)) for i in range(_MOST)}
                return [found[place] for place in sorted(places)]
    return next((thresholds[-1:] for thresholds in reached if thresholds), [])


def tabulate(histories: Sequence[History], thresholds: Sequence[float]) -> list[Row]:
    """The rows of the table, measured quantities before settings.

    Args:
        histories: The runs.
        thresholds: Accuracies (0..1) to tell the epochs to.
    """
    rows = [
        Row("best val/accuracy", [history.best[1] for history in histories], ".4f"),
        Row("epoch of best", [history.best[0] for history in histories], "g"),
        Row("final val/accuracy", [history.final[1] for history in histories], ".4f"),
        Row("epoch of final", [history.final[0] for history in histories], "g"),
        Row("test/accuracy", [history.test_accuracy for history in histories], ".4f"),
    ]
    for threshold in thresholds:
        epochs = [history.epochs_to(threshold) for history in histories]
        reached = [NOT_REACHED if epoch is None else epoch for epoch in epochs]
        rows.append(Row(f"epochs to val/accuracy {threshold:g}", list(reached), "g"))
    return [
        *rows,
        Row("images per second", [history.images_per_second for history in histories], ",.0f"),
        Row("parameters", [history.num_parameters for history in histories], ",d"),
        *differing_settings([history.settings for history in histories]),
    ]


def differing_settings(settings: Sequence[dict[str, Any] | None]) -> list[Row]:
    """Settings that differ in value or are not set in all runs, by the shortest clear keys.

    Args:
        settings: One flat config per run; `None` (unknown) is compared with nothing.
    """
    known = [_merge_classes(config) for config in settings if config is not None]
    keys = list(dict.fromkeys(key for config in known for key in config))
    rows = []
    for key in keys:
        texts = [_text(config[key]) if key in config else None for config in known]
        if key.rpartition(".")[2] in _IGNORED or len(set(texts)) == 1:
            continue
        shown = _shorten_classes(texts)
        values = [None if config is None else shown.pop(0) for config in settings]
        rows.append(Row(_shorten(key, keys), list(values), is_setting=True))
    return rows


def to_csv(names: Sequence[str], rows: Sequence[Row]) -> str:
    """The table for programs: numbers in full, unknown ones empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *names])
    writer.writerows([row.name, *map(_whole, row.values)] for row in rows)
    return text.getvalue()


def to_markdown(names: Sequence[str], rows: Sequence[Row]) -> str:
    """The table for a README or an issue."""
    lines = [["", *names], ["---", *["---:"] * len(names)]]
    lines += [[f"`{row.name}`" if row.is_setting else row.name, *row.shown()] for row in rows]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def to_text(names: Sequence[str], rows: Sequence[Row]) -> str:
    """The table in aligned columns, as wide as it needs; an empty line before the settings."""
    lines = [["", *names], *([row.name, *row.shown()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    texts = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    num_measured = sum(not row.is_setting for row in rows)
    if num_measured < len(rows):
        texts.insert(1 + num_measured, "")
    return "\n".join(texts)


def _merge_classes(config: dict[str, Any]) -> dict[str, Any]:
    """`model` for `model.class_path`, `model.lr` for `model.init_args.lr`."""
    return {
        key.replace(".init_args", "").removesuffix(".class_path"): value
        for key, value in config.items()
    }


def _shorten(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted key that no other key has."""
    parts = key.split(".")
    ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
    return next(
        end
        for end in ends
        if all(other == key or not f".{other}".endswith(f".{end}") for other in keys) or end == key
    )


def _shorten_classes(texts: Sequence[str | None]) -> list[str | None]:
    """Import paths by their last part, where that tells them apart."""
    paths = [text for text in texts if text is not None]
    is_path = all("." in text and all(map(str.isidentifier, text.split("."))) for text in paths)
    short = [text if text is None else text.rpartition(".")[2] for text in texts]
    return short if is_path and len(set(short)) == len(set(texts)) else list(texts)


def _whole(value: float | str | None) -> float | str | None:
    """Epoch 3, not 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
