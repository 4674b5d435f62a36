"""What configs and flags say, before a parser reads them."""

import inspect
from typing import Any

import pytest

from cnn_lightning import callbacks
from cnn_lightning.commands.configs import model_class
from cnn_lightning.commands.options import CALLBACK_GROUPS


@pytest.mark.parametrize(
    ("argv", "configs", "found"),
    [
        (["--model", "LeNet"], [{"model": "ResNet"}], "LeNet"),
        (["--model.class_path=mine.LeNet"], [], "mine.LeNet"),
        ([], [{"model": "ResNet"}, {"model": {"class_path": "LeNet"}}, {"run": "x"}], "LeNet"),
        ([], [{"model": {"init_args": {"depth": 34}}}], None),
        # the parser reads these
        (["--model", "part.yaml"], [{"model": "ResNet"}], None),
        (["--model=parts/lenet"], [], None),
        (["--model", "{class_path: LeNet}"], [], None),
        ([], [{"model": "part.yml"}], None),
        ([], [{"model": "../part.json"}], None),
    ],
)
def test_the_last_class_that_is_named_is_the_model(
    argv: list[str], configs: list[dict[str, Any]], found: str | None
) -> None:
    assert model_class(argv, configs) == found


@pytest.mark.parametrize("name", CALLBACK_GROUPS.values())
def test_default_of_a_float_is_a_float(name: str) -> None:
    # a config has it as it is, and one that was read and written again as a float: `compare` would
    # show 10 and 10.0 as a difference
    parameters = inspect.signature(getattr(callbacks, name)).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.annotation is float}
    assert all(isinstance(default, float) for default in defaults.values()), defaults
