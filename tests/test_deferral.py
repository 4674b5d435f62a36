"""A module put off is imported when something of it is wanted, and not before."""

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn_lightning.deferral import absent, deferred


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose import leaves a file behind."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late/__init__.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "__all__ = ['VALUE']\nVALUE = 7\n"
    )
    (tmp_path / "late/part.py").write_text("PART = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "late"
    for name in ("late", "late.part"):
        sys.modules.pop(name, None)


def test_importing_it_and_asking_what_is_answered_imports_nothing(
    package: str, tmp_path: Path
) -> None:
    with deferred(package, known=None):
        late = importlib.import_module(package)
        assert hasattr(late, "known")
        assert not hasattr(late, "__file__")
    assert not (tmp_path / "imported").exists()
    assert package not in sys.modules
    assert importlib.import_module(package).VALUE == 7


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import late; found = late.VALUE", 7),
        ("from late import VALUE as found", 7),
        ("from late import *; found = VALUE", 7),
        ("import late.part; found = late.part.PART", 8),
        ("from late.part import PART as found", 8),
        ("from late import part; found = part.PART", 8),
    ],
)
def test_every_way_to_want_something_of_it(package: str, statement: str, expected: int) -> None:
    names: dict[str, object] = {}
    with deferred(package):
        exec(statement, names)
    assert names["found"] == expected
    assert importlib.import_module(package).VALUE == 7


def test_name_that_it_lacks(package: str) -> None:
    with deferred(package), pytest.raises(ImportError, match="nothing"):
        exec("from late import nothing")


def test_module_kept_by_someone_answers_later(package: str) -> None:
    with deferred(package):
        late = importlib.import_module(package)
    assert late.VALUE == 7


def test_imported_module_stays(package: str) -> None:
    late = importlib.import_module(package)
    with deferred(package, known=None):
        assert sys.modules[package] is late
        assert not hasattr(late, "known")


def test_commands_do_without_what_torchmetrics_imports_for_one_name() -> None:
    code = (
        "import sys; from cnn_lightning.cli import main; main(['export', '--help']);"
        "assert 'torchmetrics' in sys.modules; assert 'scipy.signal' not in sys.modules;"
        "import scipy.signal; assert scipy.signal.lfilter"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_absent_module_is_not_found_inside_and_is_after(package: str) -> None:
    with absent(package):
        assert importlib.util.find_spec(package) is None
        with pytest.raises(ImportError):
            importlib.import_module(package)
    assert importlib.import_module(package).VALUE == 7


def test_imported_module_is_not_absent(package: str) -> None:
    late = importlib.import_module(package)
    with absent(package):
        assert importlib.import_module(package) is late
    assert sys.modules[package] is late


@pytest.mark.parametrize("has_gpu", [False, True])
def test_commands_do_without_a_compiler_for_gpus_where_there_is_none(has_gpu: bool) -> None:
    pytest.importorskip("triton")
    code = (
        f"import sys, torch; torch.accelerator.is_available = lambda: {has_gpu};"
        "from cnn_lightning.cli import main; main(['export', '--help']);"
        "assert 'torch._dynamo' in sys.modules;"
        f"assert ('triton' in sys.modules) is {has_gpu}; import triton; assert triton.__version__"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "triton" not in done.stderr
