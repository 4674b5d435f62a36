"""The table says what differs, in words and numbers that can be read and computed with."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from cnn_lightning.commands.comparison import (
    Row,
    choose_thresholds,
    differing_settings,
    name_runs,
    tabulate,
    to_csv,
    to_markdown,
    to_text,
)
from cnn_lightning.history import Curve, History
from cnn_lightning.runs import RunFolder


def history(curve: Curve, path: str = "logs/x/version_0", **values: Any) -> History:
    given: dict[str, Any] = {
        "train_loss": [],
        "test_accuracy": None,
        "images_per_second": 3000.4,
        "dead": {},
        "saturated": {},
        "gradient_norm": {},
        "settings": {},
        "num_parameters": 61706,
    }
    return History(RunFolder(Path(path)), curve, **{**given, **values})


SLOW = history([(1, 0.31), (2, 0.52), (3, 0.65), (4, 0.64)])
FAST = history([(1, 0.52), (2, 0.7)], test_accuracy=0.71)


def settings(*configs: dict[str, Any] | None) -> dict[str, list[Any]]:
    return {row.name: row.values for row in differing_settings(configs)}


def test_the_rows_are_what_was_reached_and_when() -> None:
    shown = {row.name: row.shown() for row in tabulate([SLOW, FAST], [0.5, 0.7])}
    assert shown == {
        "best val/accuracy": ["0.6500", "0.7000"],
        "epoch of best": ["3", "2"],
        "final val/accuracy": ["0.6400", "0.7000"],
        "epoch of final": ["4", "2"],
        "test/accuracy": ["–", "0.7100"],
        "epochs to val/accuracy 0.5": ["2", "1"],
        "epochs to val/accuracy 0.7": ["not reached", "2"],
        "images per second": ["3,000", "3,000"],
        "parameters": ["61,706", "61,706"],
    }


def test_thresholds_are_round_reached_by_all_and_tell_the_runs_apart() -> None:
    chosen = choose_thresholds([SLOW, FAST])
    assert chosen == [0.4, 0.6]
    for threshold in chosen:
        assert SLOW.epochs_to(threshold) is not None
        assert SLOW.epochs_to(threshold) != FAST.epochs_to(threshold)


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ([[(1, 0.9), (2, 0.912)], [(1, 0.905), (2, 0.911)]], [0.902, 0.904]),
        ([[(1, 0.95)], [(1, 0.93)]], [0.8]),  # nothing tells them apart
        ([[(1, 0.002)], [(1, 0.5)]], [0.002]),
        ([[(1, 0.0)], [(1, 0.5)]], []),
        ([[(1, 0.1), (2, 0.9)], [(1, 0.1), (2, 0.5), (3, 0.9)]], [0.6, 0.8]),
        ([[(1, 0.1), (2, 1.0)], [(1, 0.05), (2, 0.1), (3, 1.0)]], [0.2, 0.4, 0.8, 1.0]),
    ],
)
def test_thresholds_of_close_hopeless_and_perfect_runs(
    curves: list[Curve], expected: list[float]
) -> None:
    assert choose_thresholds([history(curve) for curve in curves]) == expected


def test_only_settings_that_differ_are_shown() -> None:
    one = {"model.init_args.activation": "relu", "data.batch_size": 64, "seed_everything": 1}
    other = {**one, "model.init_args.activation": "tanh", "seed_everything": 2}
    assert settings(one, other, one) == {
        "activation": ["relu", "tanh", "relu"],
        "seed_everything": ["1", "2", "1"],
    }
    assert settings(one, dict(one)) == {}


def test_a_setting_that_one_run_has_not_differs_even_from_null() -> None:
    assert settings({"model.dropout": None}, {}) == {"dropout": ["null", None]}


def test_names_and_places_of_output_are_not_settings() -> None:
    keys = ("run", "log_dir", "ckpt_path", "trainer.default_root_dir", "trainer.logger.save_dir")
    assert settings(dict.fromkeys(keys, "a"), dict.fromkeys(keys, "b")) == {}
    assert settings({"data.root": "a"}, {"data.root": "b"}) == {"root": ["a", "b"]}


def test_a_run_without_a_config_is_compared_with_nothing() -> None:
    assert settings({"a": 1}, None, {"a": 1}) == {}
    assert settings({"a": 1}, None, {"a": 2}) == {"a": ["1", None, "2"]}
    assert settings(None, None) == {}


def test_keys_are_as_short_as_is_clear() -> None:
    one = {
        "optimizer.class_path": "torch.optim.SGD",
        "optimizer.init_args.lr": 0.1,
        "head.init_args.lr": 0.1,
        "lr": 1,
        "data.init_args.size": 1,
        "extra.data.init_args.size": 1,
    }
    other = {key: f"{value}0" for key, value in one.items()}
    assert list(settings(one, other)) == [
        "optimizer",
        "optimizer.lr",
        "head.lr",
        "lr",
        "data.size",
        "extra.data.size",
    ]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["torch.optim.SGD", "torch.optim.Adam"], ["SGD", "Adam"]),
        (["mine.LeNet", "cnn_lightning.LeNet"], ["mine.LeNet", "cnn_lightning.LeNet"]),
        (["a.yaml", "b/c.yaml"], ["a.yaml", "b/c.yaml"]),
        ([0.0005, 0.05], ["0.0005", "0.05"]),
        ([True, None], ["true", "null"]),
        ([[1, 2], "1"], ["[1, 2]", "1"]),
    ],
)
def test_values_are_written_as_in_a_config(given: list[Any], shown: list[str]) -> None:
    assert settings({"a": given[0]}, {"a": given[1]}) == {"a": shown}


def test_runs_are_named_as_shortly_as_tells_them_apart() -> None:
    def names(*paths: str) -> list[str]:
        return name_runs([history([(1, 0.5)], path) for path in paths])

    assert names("logs/a/version_3", "logs/b/version_0") == ["a", "b"]
    assert names("logs/a/version_0", "logs/a/version_1") == ["a/version_0", "a/version_1"]
    twins = ["one/a/version_0", "two/a/version_0"]
    assert names(*twins) == twins


ROWS = [
    Row("best", [1 / 3, 0.5], ".4f"),
    Row("epoch", [3.0, "not reached"], "g"),
    Row("test", [None, 1.0], ".4f"),
    Row("activation", ["relu|6", None], is_setting=True),
]


def test_the_csv_holds_numbers_in_full() -> None:
    read = list(csv.reader(io.StringIO(to_csv(["a", "b, c"], ROWS))))
    assert read == [
        ["run", "a", "b, c"],
        ["best", str(1 / 3), "0.5"],
        ["epoch", "3", "not reached"],
        ["test", "", "1"],
        ["activation", "relu|6", ""],
    ]


def test_the_markdown_is_a_table() -> None:
    lines = to_markdown(["a", "b|c"], ROWS).splitlines()
    assert lines[:3] == ["|  | a | b\\|c |", "| --- | ---: | ---: |", "| best | 0.3333 | 0.5000 |"]
    assert lines[-1] == "| `activation` | relu\\|6 | – |"
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}


def test_the_text_is_aligned_and_whole() -> None:
    long = "cifar10_lenet_tanh_with_a_long_name"
    lines = to_text(["a", long], ROWS).splitlines()
    assert {len(line) for line in lines if line} == {len("activation") + 8 + 2 + len(long)}
    assert lines[0].endswith(long)
    assert lines.index("") == len(lines) - 2  # before the settings
    assert "" not in to_text(["a", long], ROWS[:3]).splitlines()
