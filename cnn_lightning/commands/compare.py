"""`compare`: runs in one table and one figure, and as a page to mail."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnn_lightning.commands.comparison import (
    Row,
    choose_thresholds,
    name_runs,
    tabulate,
    to_csv,
    to_markdown,
    to_text,
)
from cnn_lightning.commands.parser import Parser
from cnn_lightning.console import say
from cnn_lightning.errors import UserError
from cnn_lightning.figures import draw_comparison, to_png
from cnn_lightning.figures.comparison import MAX_RUNS
from cnn_lightning.files import write_bytes, write_text
from cnn_lightning.history import History, read_history
from cnn_lightning.runs import RunFolder, find_run

# bytes; file systems take 255, and a suffix comes on top
_LONGEST_NAME = 200


def main(command: str, argv: list[str]) -> int:
    """Compare runs; returns the exit code."""
    arguments = _make_parser(command).parse_args(argv)
    log_dir = Path(arguments.log_dir)
    thresholds = _check_thresholds(arguments.thresholds)
    if arguments.output is not None and Path(arguments.output).suffix.lower() != ".png":
        raise UserError(f"--output {arguments.output} is no PNG file", "give a name ending in .png")
    html = None if arguments.html is None else Path(arguments.html)
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--html {html} is no page", "give a name ending in .html")
    folders = _find_runs(log_dir, arguments.runs, least=2 if html is None else 1)
    histories = [read_history(folder) for folder in folders]
    names = name_runs(histories)
    output = Path(arguments.output or log_dir / "compare" / f"{_file_name(names)}.png")
    for name, folder in zip(names, folders, strict=True):
        say(f"{name}: {folder.path}")
    rows = tabulate(histories, thresholds or choose_thresholds(histories))
    _print_table(names, rows)
    remarks = _remarks(names, histories, rows)
    for line in remarks:
        say(line)
    curves = to_png(_draw(names, histories))
    _write(output, names, histories, rows, curves)
    if html is not None:
        from cnn_lightning.commands.report import make_page

        with _explained(html, "--html"):
            write_text(html, make_page(names, histories, rows, remarks, curves))
        say(f"{html} ({html.stat().st_size / 1e6:.1f} MB)")
    return 0


def _make_parser(command: str) -> Parser:
    parser = Parser(command, "Two or more runs in one table and one figure, or as a page to mail.")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help=f"up to {MAX_RUNS}: a run folder (logs/x/version_0), or the name or folder of a run "
        "(x, logs/x), of which the newest version is taken",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.png",
        help="the figure; the table goes beside it as .csv and .md "
        "(default: compare/A-vs-B.png in the folder of all runs)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE.html",
        help="also all of it as one page, of a single run too: table, curves, feature maps, "
        "kernels and mistakes in a file of at most 12 MB that loads nothing from elsewhere",
    )
    parser.add_argument(
        "--thresholds",
        nargs="+",
        type=float,
        metavar="ACCURACY",
        help="validation accuracies, 0..1, to tell the epochs to (default: chosen for the runs)",
    )
    parser.add_argument("--log_dir", default="logs", help="folder of all runs (default: logs)")
    return parser


def _check_thresholds(given: list[float] | None) -> list[float]:
    for threshold in given or ():
        if not 0 < threshold <= 1:
            raise UserError(
                f"--thresholds {threshold:g} is no accuracy",
                "give shares above 0 and up to 1: 0.6 for 60 %",
            )
    return sorted(set(given or ()))


def _find_runs(log_dir: Path, asked: Sequence[str], *, least: int) -> list[RunFolder]:
    if not least <= len(asked) <= MAX_RUNS:
        raise UserError(
            f"{len(asked)} run{'s' * (len(asked) > 1)} to compare",
            f"give {least} to {MAX_RUNS}: run folders such as logs/x/version_0, or names of runs",
        )
    folders = [find_run(log_dir, run) for run in asked]
    places = [folder.path.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(
                f"{folders[number].path} is given twice",
                "give other runs; versions of one run by their folders",
            )
    return folders


def _file_name(names: Sequence[str]) -> str:
    """All names in one, whole unless that is too long for a file system."""
    name = "-vs-".join(names).strip("/").replace("/", "_")
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"


def _print_table(names: Sequence[str], rows: Sequence[Row]) -> None:
    if not sys.stdout.isatty():
        for line in to_text(names, rows).splitlines():
            say(line)
        return
    table = Table()
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    num_measured = sum(not row.is_setting for row in rows)
    for number, row in enumerate(rows, start=1):
        cells = [Text(cell) for cell in (row.name, *row.shown())]  # brackets are no markup here
        table.add_row(*cells, end_section=number == num_measured)
    Console().print(table)


def _remarks(names: Sequence[str], histories: Sequence[History], rows: Sequence[Row]) -> list[str]:
    """A line for everything that a reader would look for in vain."""
    lacking = {
        "config.yaml: not kept": [history.settings is None for history in histories],
        "dead and saturated units: not logged": [not (h.dead or h.saturated) for h in histories],
        "gradient norms: not logged": [not history.gradient_norm for history in histories],
    }
    lines = [
        f"{what} by {', '.join(name for name, lacks in zip(names, which, strict=True) if lacks)}"
        if not all(which)
        else f"{what} by any run"
        for what, which in lacking.items()
        if any(which)
    ]
    if len(names) > 1 and not any(row.is_setting for row in rows):
        lines.append("settings: no difference")
    return lines


def _draw(names: Sequence[str], histories: Sequence[History]) -> Figure:
    return draw_comparison(
        names,
        [history.val_accuracy for history in histories],
        [history.train_loss for history in histories],
        dead=[history.dead for history in histories],
        saturated=[history.saturated for history in histories],
        gradient_norm=[history.gradient_norm for history in histories],
    )


def _write(
    output: Path,
    names: Sequence[str],
    histories: Sequence[History],
    rows: Sequence[Row],
    curves: bytes,
) -> None:
    places: list[float | str | None] = [str(history.folder.path) for history in histories]
    table = [*rows, Row("folder", places)]
    with _explained(output, "--output"):
        write_bytes(output, curves)
        write_text(output.with_suffix(".csv"), to_csv(names, table))
        write_text(output.with_suffix(".md"), to_markdown(names, table))
    for suffix in (output.suffix, ".csv", ".md"):
        say(str(output.with_suffix(suffix)))


@contextmanager
def _explained(path: Path, flag: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}", f"give another {flag}"
        ) from error
