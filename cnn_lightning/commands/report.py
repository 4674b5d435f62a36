"""One page of several runs that holds all it shows, for mailing: `compare --html`."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from cnn_lightning import __version__
from cnn_lightning.commands.album import Album, Cell, Film, Frame, Section
from cnn_lightning.commands.comparison import UNKNOWN, Row
from cnn_lightning.history import History

# bytes: mail servers refuse messages of 20 to 25 MB, and mailing adds a third
MAX_PAGE = 12_000_000
MAX_PICTURES = 10_000_000
MAX_LAYERS, MAX_EPOCHS, MAX_CLASSES, MAX_SETTINGS = 6, 8, 100, 100
_MAX_CELL, _MAX_CONFIG, _MAX_LINES = 200, 20_000, 100  # letters, letters, lines of what is left out
_EPOCH = re.compile(r"epoch_(\d+)\.png")
_BOUNDS = (
    f"A page is at most {MAX_PAGE // 10**6} MB, its pictures {MAX_PICTURES // 10**6} MB: those of "
    f"the tests first, then layers at their first and last epoch, then what lies between. Shown "
    f"are {MAX_LAYERS} layers at {MAX_EPOCHS} epochs each, {MAX_CLASSES} classes and "
    f"{MAX_SETTINGS} settings, texts up to {_MAX_CELL} letters."
)
_NO_ROOM = "left out, see below"
_TEST = "cnn-lightning test --run NAME --ckpt_path best"
# what `test` and `fit` draw once: file, title, what is to be seen
_PICTURES = (
    (
        "test_confusion_matrix",
        "Confusion matrix",
        "Rows are the true classes of the test images, columns what the network took them for.",
    ),
    (
        "test_worst_mistakes",
        "Worst mistakes",
        "Test images that were classified wrongly, those the network was most sure of first.",
    ),
    (
        "test_reliability",
        "Calibration",
        "How often the network is right, by how sure it is: on the diagonal it is as often right "
        "as it says.",
    ),
    ("test_class_accuracy", "Accuracy by class", "Share of each class's test images got right."),
    (
        "validation_predictions",
        "Predictions",
        "Validation images, with what the network takes them for at the end of the training.",
    ),
)
_FILMS = (
    (
        "feature_maps",
        "Feature maps",
        "What a layer makes of a few images, as training goes on: a validation image of each of "
        "the first ten classes, unless others were named. Choose an epoch; 0 is the untrained "
        "network. With the keyboard: the arrow keys.",
    ),
    ("kernels", "Kernels", "What the layers have learnt to look for, as training goes on."),
)


def make_page(
    names: Sequence[str],
    histories: Sequence[History],
    rows: Sequence[Row],
    remarks: Sequence[str],
    curves: bytes,
) -> str:
    """The page as HTML: no script, nothing loaded from elsewhere, every text escaped.

    Args:
        names: One per run.
        histories: The runs.
        rows: The table of `compare`.
        remarks: Sentences for below it.
        curves: The figure of `compare`, a PNG file.
    """
    album = Album(MAX_PICTURES)
    shown_names = [_cut(name) for name in names]
    folders = [history.folder.figures for history in histories]
    curves_cell = Cell("", album.add(curves, _describe(shown_names, histories), Path("curves")))
    pictures = [_section(shown_names, folders, *one, album) for one in _PICTURES]
    films = [_film_section(shown_names, folders, *one, album) for one in _FILMS]
    classes, num_classes = _classes(histories)
    settings = [row for row in rows if row.is_setting]
    if num_classes > len(classes):
        album.left_out.append(f"{num_classes - len(classes)} classes of higher accuracy")
    if len(settings) > MAX_SETTINGS:
        album.left_out.append(f"{len(settings) - MAX_SETTINGS} settings that differ")
    files = resources.files("cnn_lightning.commands")
    style = files.joinpath("report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath("report.html").read_text(encoding="utf-8"))
    return template.render(
        title=" vs ".join(shown_names),
        style=Markup(style),  # noqa: S704  # a file of this package
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
        version=__version__,
        names=shown_names,
        head=["", *shown_names],
        rows=_table(rows, histories, settings),
        remarks=[*remarks, *_several_tests(shown_names, histories)],
        classes=classes,
        curves=curves_cell,
        sections=[section for section in (*films, *pictures) if section is not None],
        configs=[(name, _config(one)) for name, one in zip(shown_names, histories, strict=True)],
        bounds=_BOUNDS,
        left_out=[
            *map(_cut, album.left_out[:_MAX_LINES]),
            *[f"and {len(album.left_out) - _MAX_LINES} more"] * (len(album.left_out) > _MAX_LINES),
        ],
    )


def _table(
    rows: Sequence[Row], histories: Sequence[History], settings: Sequence[Row]
) -> list[list[str]]:
    measured = [row for row in rows if not row.is_setting]
    more = [
        Row(f"test/{name}", [history.test.get(name) for history in histories], ".4f")
        for name in ("top3", "calibration_error")
    ]
    place = 1 + next(i for i, row in enumerate(measured) if row.name == "test/accuracy")
    measured[place:place] = [row for row in more if any(v is not None for v in row.values)]
    table = [[row.name, *map(_cut, row.shown())] for row in measured]
    if settings:
        table.append(["Settings that differ" if len(histories) > 1 else "Settings"])
    return table + [[_cut(row.name), *map(_cut, row.shown())] for row in settings[:MAX_SETTINGS]]


def _several_tests(names: Sequence[str], histories: Sequence[History]) -> list[str]:
    """Of whose test the numbers are, and of whose the pictures, where they may differ."""
    return [
        f"{name}: {history.num_tests} checkpoints were tested. The numbers are those of best.ckpt, "
        "if it is among them, the pictures those of the test that was made last."
        for name, history in zip(names, histories, strict=True)
        if history.num_tests > 1
    ]


def _classes(histories: Sequence[History]) -> tuple[list[list[str]], int]:
    """Accuracies (0..1) of the classes of lowest accuracy, and how many classes there are."""
    of_runs = [
        {name[9:]: value for name, value in history.test.items() if name.startswith("accuracy/")}
        for history in histories
    ]
    names = sorted(
        {name for known in of_runs for name in known},
        key=lambda name: min(known[name] for known in of_runs if name in known),
    )
    table = [
        [_cut(name), *(f"{known[name]:.4f}" if name in known else UNKNOWN for known in of_runs)]
        for name in names[:MAX_CLASSES]
    ]
    return table, len(names)


def _describe(names: Sequence[str], histories: Sequence[History]) -> str:
    """What the curves come to, in words."""
    reached = [
        f"{name} reaches {history.best[1]:.4f} in epoch {history.best[0]:g}, its last training "
        f"loss is {history.train_loss[-1][1]:.4g}"
        if history.train_loss
        else f"{name} reaches {history.best[1]:.4f} in epoch {history.best[0]:g}"
        for name, history in zip(names, histories, strict=True)
    ]
    return f"Validation accuracy and training loss by epoch: {'; '.join(reached)}."


def _section(
    names: Sequence[str], folders: Sequence[Path], file: str, title: str, text: str, album: Album
) -> Section | None:
    cells = [
        Cell(
            name,
            album.add_file(folder / f"{file}.png", f"{title} of {name}. {text}"),
            _NO_ROOM if _has(folder, file) else _absence(file),
        )
        for name, folder in zip(names, folders, strict=True)
    ]
    if not any(_has(folder, file) for folder in folders):
        album.left_out.append(f"{title}: {_absence(file)}")
        return None
    return Section(title, file, text, cells=cells)


def _has(folder: Path, file: str) -> bool:
    return (folder / f"{file}.png").is_file()


def _absence(file: str) -> str:
    if file == "test_worst_mistakes":
        return f"none drawn: no mistakes, or not tested yet ({_TEST})"
    return f"not drawn yet ({_TEST})" if file.startswith("test_") else "not drawn by this run"


def _film_section(
    names: Sequence[str], folders: Sequence[Path], tag: str, title: str, text: str, album: Album
) -> Section | None:
    layers = list(dict.fromkeys(layer for folder in folders for layer in _layers(folder / tag)))
    if not layers:
        album.left_out.append(f"{title}: not drawn by any run")
        return None
    album.left_out += [f"{title} of {layer}" for layer in layers[MAX_LAYERS:]]
    films = [
        _film(names, folders, f"{tag}/{layer}", f"{tag}-{number}", f"{title} of {layer}", album)
        for number, layer in enumerate(layers[:MAX_LAYERS])
    ]
    return Section(title, tag, text, films=[film for film in films if film is not None])


def _layers(folder: Path) -> list[str]:
    """The layers that pictures were drawn of, in natural order."""
    found = [path.name for path in folder.glob("*") if _epochs(path)]
    return sorted(
        found, key=lambda name: [(t, int(d or 0)) for t, d in re.findall(r"(\D*)(\d*)", name)]
    )


def _epochs(folder: Path) -> dict[int, Path]:
    paths = [path for path in folder.glob("epoch_*.png") if _EPOCH.fullmatch(path.name)]
    return {int(path.stem.removeprefix("epoch_")): path for path in sorted(paths)}


def _film(
    names: Sequence[str], folders: Sequence[Path], place: str, anchor: str, alt: str, album: Album
) -> Film:
    of_runs = [_epochs(folder / place) for folder in folders]
    epochs = sorted({epoch for found in of_runs for epoch in found})
    chosen = _spread(epochs, MAX_EPOCHS)
    if len(epochs) > len(chosen):
        told = ", ".join(str(epoch) for epoch in epochs if epoch not in chosen)
        album.left_out.append(f"{alt} at epochs {told}")
    frames: dict[int, Frame] = {}
    # what is last in line may find no room
    for epoch in sorted(chosen, key=lambda epoch: epoch not in (chosen[0], chosen[-1])):
        cells = []
        for name, found in zip(names, of_runs, strict=True):
            if epoch in found:
                picture = album.add_file(found[epoch], f"{alt} of {name}, {_when(epoch)}")
                cells.append(Cell(name, picture, _NO_ROOM))
            else:
                cells.append(Cell(name, None, f"no picture of epoch {epoch}"))
        frames[epoch] = Frame(str(epoch), cells)
    return Film(_cut(place.partition("/")[2]), anchor, [frames[epoch] for epoch in chosen])


def _when(epoch: int) -> str:
    return f"after epoch {epoch}" if epoch else "untrained"


def _spread(numbers: list[int], most: int) -> list[int]:
    """At most so many of ascending numbers, the first and the last among them."""
    if len(numbers) <= most:
        return numbers
    return [numbers[round(i * (len(numbers) - 1) / (most - 1))] for i in range(most)]


def _config(history: History) -> str:
    path = history.folder.newest_config()
    if path is None:
        return "not kept"
    text = path.read_text(encoding="utf-8", errors="replace")
    more = "" if len(text) <= _MAX_CONFIG else f"\n… and {len(text) - _MAX_CONFIG} letters more"
    return text[:_MAX_CONFIG] + more


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 2]} …"
