"""`import cnn_lightning as cl`: the documented names, each with an example that is run."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from readme import blocks

import cnn_lightning as cl

NAMES = [name for name in cl.__all__ if name != "__version__"]
PACKAGE = Path(cl.__file__).parent


def examples(thing: Any) -> list[doctest.Example]:
    found = doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")
    # what only imports shows nothing
    return [example for example in found if example.want]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented_with_an_example(name: str) -> None:
    thing = getattr(cl, name)
    assert thing.__doc__
    assert examples(thing), f"{name} has no example that shows a result"
    # so that pytest's --doctest-modules, which goes through the package's files, runs it
    module = importlib.import_module(thing.__module__)
    assert PACKAGE in Path(str(module.__file__)).parents
    assert getattr(module, name) is thing


def test_a_name_without_an_example_would_be_found() -> None:
    class Bare:
        """Nothing to see.

        >>> import cnn_lightning
        """

    assert not examples(Bare)
    assert not examples(type("NoDoc", (), {}))


def test_examples_of_the_package_are_collected(pytestconfig: pytest.Config) -> None:
    assert "cnn_lightning" in pytestconfig.getini("testpaths")
    assert "--doctest-modules" in pytestconfig.getini("addopts")


def test_dir_lists_the_public_names() -> None:
    assert sorted(cl.__all__) == dir(cl)
    assert re.fullmatch(r"\d+\.\d+\.\d+", cl.__version__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="LeNett"):
        cl.LeNett  # noqa: B018  # the access is the test


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        f"{node.module}.{alias.asname}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    places = {f"cnn_lightning.{module}.{name}" for name, module in cl._PLACES.items()}
    assert seen == places


def test_names_of_the_readme_are_public() -> None:
    code = [block.text for block in blocks() if block.language == "python"]
    imported = {
        alias.name
        for text in code
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "cnn_lightning"
        for alias in node.names
    }
    assert imported
    assert imported <= set(cl.__all__)


def test_import_alone_loads_neither_torch_nor_lightning() -> None:
    code = "import cnn_lightning, sys; print(sorted({'torch', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
