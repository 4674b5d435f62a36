"""What configs and flags say, before a parser reads them."""

import inspect
from typing import Any

import pytest
import yaml

from cnn_lightning import callbacks
from cnn_lightning.cli import main
from cnn_lightning.commands.configs import model_class, names_class
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


@pytest.mark.parametrize(
    ("argv", "is_named"),
    [
        (["--optimizer", "AdamW"], True),
        (["--optimizer.class_path=AdamW", "--optimizer.lr", "0.1"], True),
        (["--optimizer={class_path: Adam, init_args: {lr: 0.1}}"], True),
        (["--config={optimizer: {class_path: Adam}, run: x}"], True),
        (["--optimizer", "parts/adam.yaml"], True),
        (["--optimizer.lr", "0.1"], False),
        (["--optimizer", "{init_args: {lr: 0.1}}"], False),
        (["--config", "{optimizer: {init_args: {lr: 0.1}}}"], False),
        (["--config={optimizer: null}", "--schedule", "ConstantLR"], False),
        ([], False),
    ],
)
def test_a_class_is_named_or_given_arguments_alone(argv: list[str], *, is_named: bool) -> None:
    assert names_class("optimizer", argv) == is_named


@pytest.mark.parametrize(
    ("flags", "optimizer", "schedule"),
    [
        ([], {"lr": 0.05, "momentum": 0.9, "nesterov": True}, {"warmup": 0.05}),
        (["--optimizer.lr=0.2"], {"lr": 0.2, "momentum": 0.9, "nesterov": True}, {}),
        (["--optimizer=SGD"], {"lr": 1e-3, "momentum": 0.0, "nesterov": False}, {}),
        (["--optimizer=AdamW", "--optimizer.lr=0.2"], {"lr": 0.2, "weight_decay": 0.01}, {}),
        (["--schedule=WarmupSteps"], {"lr": 0.05}, {"warmup": 0.0}),
    ],
)
def test_a_class_has_its_own_defaults_and_none_of_the_usual_one(
    flags: list[str],
    optimizer: dict[str, Any],
    schedule: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["fit", "--model=LeNet", "--data=ShapesDataModule", *flags, "--print_config"]
    assert main(argv) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["optimizer"]["init_args"].items() >= optimizer.items()
    assert settings["schedule"]["init_args"].items() >= schedule.items()
