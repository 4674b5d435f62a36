"""`compare` from the command line: its files, its remarks, and what it refuses."""

import csv
import re
from pathlib import Path

import pytest
from make_run import make_run
from PIL import Image

from cnn_lightning.cli import main

RELU = {"model": {"class_path": "cnn_lightning.LeNet", "init_args": {"activation": "relu"}}}
TANH = {"model": {"class_path": "cnn_lightning.LeNet", "init_args": {"activation": "tanh"}}}


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    make_run(tmp_path / "logs/relu/version_0", [0.3, 0.6, 0.7], settings=RELU)
    make_run(tmp_path / "logs/tanh/version_0", [0.1, 0.1], settings=RELU)
    make_run(tmp_path / "logs/tanh/version_1", [0.2, 0.4, 0.5, 0.65], settings=TANH)
    return tmp_path / "logs"


def compare(*arguments: str | Path) -> int:
    return main(["compare", *map(str, arguments)])


def read(table: Path) -> list[list[str]]:
    return list(csv.reader(table.read_text().splitlines()))


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert compare(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 2
    return message


def test_a_table_and_a_figure_of_the_newest_versions(
    log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("relu", log_dir / "tanh", "--log_dir", log_dir) == 0
    figure = log_dir / "compare/relu-vs-tanh.png"
    assert read(figure.with_suffix(".csv")) == [
        ["run", "relu", "tanh"],
        ["best val/accuracy", "0.7", "0.65"],
        ["epoch of best", "3", "4"],
        ["final val/accuracy", "0.7", "0.65"],
        ["epoch of final", "3", "4"],
        ["test/accuracy", "", ""],
        ["epochs to val/accuracy 0.3", "1", "2"],
        ["epochs to val/accuracy 0.5", "2", "3"],
        ["epochs to val/accuracy 0.6", "2", "4"],
        ["images per second", "1001", "1001.5"],
        ["parameters", "6", "6"],
        ["activation", "relu", "tanh"],
        ["folder", str(log_dir / "relu/version_0"), str(log_dir / "tanh/version_1")],
    ]
    assert f"| best val/accuracy | 0.7000 | {0.65:.4f} |" in figure.with_suffix(".md").read_text()
    with Image.open(figure) as image:
        assert image.format == "PNG"
    out = capsys.readouterr().out
    assert f"tanh: {log_dir / 'tanh/version_1'}" in out
    assert "best val/accuracy" in out
    assert out.splitlines()[-3:] == [str(figure.with_suffix(s)) for s in (".png", ".csv", ".md")]
    assert "dead and saturated units: not logged by any run" in out


def test_thresholds_and_output_of_the_user(
    log_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [log_dir / "tanh/version_0", log_dir / "tanh/version_1"]
    output = tmp_path / "new/figure.png"
    assert compare(*runs, "--output", output, "--thresholds", "0.65", "0.2", "0.2") == 0
    rows = {row[0]: row[1:] for row in read(output.with_suffix(".csv"))}
    assert rows["run"] == ["tanh/version_0", "tanh/version_1"]
    assert [name for name in rows if name.startswith("epochs to")] == [
        "epochs to val/accuracy 0.2",
        "epochs to val/accuracy 0.65",
    ]
    assert rows["epochs to val/accuracy 0.2"] == ["not reached", "1"]
    assert output.is_file()
    assert not (log_dir / "compare").exists()


def test_what_is_missing_is_said(log_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged = {"activations/dead/act1": 0.5, "gradient_norm/conv1": 0.1}
    make_run(log_dir / "logged/version_0", at_the_end=logged)
    (log_dir / "relu/version_0/config.yaml").unlink()
    (log_dir / "relu/version_0/checkpoints/best.ckpt").unlink()
    assert compare("relu", "logged", "--log_dir", log_dir) == 0
    out = capsys.readouterr().out
    assert "dead and saturated units: not logged by relu\n" in out
    assert "gradient norms: not logged by relu\n" in out
    assert "config.yaml: not kept by relu\n" in out
    assert [line.split()[1:] for line in out.splitlines() if line.startswith("parameters")] == [
        ["–", "6"]
    ]


def test_equal_settings_are_said_to_be_equal(
    log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("relu", log_dir / "tanh/version_0", "--log_dir", log_dir) == 0
    assert "settings: no difference" in capsys.readouterr().out


def test_on_a_terminal_names_are_whole_and_no_markup(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "[bold]a_run_of_a_hundred_letters_" + "x" * 70
    make_run(log_dir / name / "version_0")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert compare("relu", name, "--log_dir", log_dir) == 0
    out = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    head = out[out.index("┏") : out.index("┡")]
    assert "".join(line.split("┃")[3].strip() for line in head.splitlines()[1:]) == name


def test_names_too_long_for_a_file_are_cut_but_differ(log_dir: Path) -> None:
    long = "x" * 200
    make_run(log_dir / long / "version_0")
    for other in ("relu", "tanh"):
        assert compare(long, other, "--log_dir", log_dir) == 0
    assert len(list((log_dir / "compare").glob("*.png"))) == 2


def test_mistakes_are_refused_with_a_remedy(
    log_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--log_dir", log_dir)
    assert "1 run to compare" in refuse(capsys, "relu", *where)
    assert "7 runs to compare" in refuse(capsys, *["relu"] * 7, *where)
    assert "given twice" in refuse(capsys, "relu", log_dir / "relu/version_0", *where)
    assert "perhaps relu" in refuse(capsys, "relo", "tanh", *where)
    assert "0.6 for 60 %" in refuse(capsys, "relu", "tanh", *where, "--thresholds", "60")
    assert "nan" in refuse(capsys, "relu", "tanh", *where, "--thresholds", "nan")
    assert "x.jpg" in refuse(capsys, "relu", "tanh", *where, "--output", "x.jpg")
    (tmp_path / "file").touch()
    taken = tmp_path / "file/figure.png"
    assert "cannot be written" in refuse(capsys, "relu", "tanh", *where, "--output", taken)
    (log_dir / "relu/version_0/metrics.csv").unlink()
    assert "relu/version_0 has no metrics.csv" in refuse(capsys, "relu", "tanh", *where)
