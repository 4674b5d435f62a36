"""What configs and flags say, before a parser reads them."""

from typing import Any

import pytest

from cnn_lightning.commands.configs import model_class


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
