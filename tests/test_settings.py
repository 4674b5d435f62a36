import math
from pathlib import Path

import pytest
from jsonargparse import get_loader

from cnn_lightning.errors import UserError
from cnn_lightning.settings import read_settings, to_yaml


@pytest.mark.parametrize(
    "value",
    [
        *("1e-3", "5.", ".5", "-1.5e+3", "1_000", ".inf", "0x1f", "017", "1:30", "2026-01-31"),
        *("yes", "null", "~", "'1'", "1.2.3", "abc", "[1, {a: 2}]"),
    ],
)
def test_values_are_read_as_the_parser_reads_them(value: str, tmp_path: Path) -> None:
    text = f"key: {value}\nother: 1\n"
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert repr(read_settings(path)) == repr(get_loader("yaml")(text))


@pytest.mark.parametrize(
    "value",
    [
        *("1e3", "1_000", ".5", "5.", "-1e-3", "1e+3", ".inf", "0x1f", "1:30", "2026-01-31", "yes"),
        *("null", "abc", "", 1e-3, 1e300, 1e-5, 5, True, None, math.inf, [1, {"a": "1e3"}]),
    ],
)
def test_what_is_written_is_read_as_it_was(value: object, tmp_path: Path) -> None:
    settings = {"key": value, "another": "1e3"}
    path = tmp_path / "config.yaml"
    for in_one_line in (False, True):
        text = to_yaml(settings, in_one_line=in_one_line)
        path.write_text(text)
        assert repr(read_settings(path)) == repr(settings)
        assert repr(get_loader("yaml")(text)) == repr(settings)
        assert not in_one_line or "\n" not in text


def test_key_that_is_set_twice_is_named_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("trainer:\n  max_epochs: 1\n  precision: 32\n  max_epochs: 2\n")
    with pytest.raises(UserError, match=r"line 4: max_epochs .*first in line 2"):
        read_settings(path)
