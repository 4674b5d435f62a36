"""Choices that are none: refused where Python code gives them, as in a config."""

from typing import Any

import pytest
from torch import nn

import cnn_lightning as cl
from cnn_lightning.choices import _choices

OF_CLASSIFIERS = ("freeze", "layout", "schedule_interval", "test_augment")
ROWS: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
    (cl.LeNet, {"num_classes": 2}, (*OF_CLASSIFIERS, "activation", "pooling")),
    (cl.VGG16, {"num_classes": 2}, ("stem",)),
    (cl.ResNet, {"num_classes": 2}, ("depth", "stem")),
    (cl.Inception, {"num_classes": 2, "version": "googlenet"}, ("stem",)),
    (cl.Inception, {"num_classes": 2, "stem": "imagenet"}, ("version",)),
    (cl.ShapesDataModule, {}, ("augment", "crop_border", "sampling")),
    (cl.MNISTDataModule, {}, ("variant",)),
    (cl.ImageFolderDataModule, {"root": "photos"}, ("channels",)),
]
CASES = [(kind, known, name) for kind, known, names in ROWS for name in names]
PARTS = (cl.ImageClassifier, cl.ImageDataModule)


@pytest.mark.parametrize(("kind", "known", "name"), CASES)
def test_a_choice_that_is_none_is_refused(kind: Any, known: dict[str, Any], name: str) -> None:
    with pytest.raises(cl.UserError, match=f"^{name} of .* is 'another'\n  use one of "):
        kind(**known, **{name: "another"})


def test_every_choice_of_a_public_class_has_a_case() -> None:
    kinds = [thing for name in cl.__all__ if isinstance(thing := getattr(cl, name), type)]
    found = {
        name
        for kind in kinds
        if issubclass(kind, PARTS)
        for one in kind.__mro__
        if one.__module__.startswith("cnn_lightning") and "__init__" in vars(one)
        for name in _choices(vars(one)["__init__"])
    }
    assert found == {name for _, _, name in CASES}


class Own(cl.ImageClassifier):
    """Has `freeze` mean something of its own, and passes what it likes on."""

    def __init__(self, freeze: str, passed: Any) -> None:
        layers = (nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
        super().__init__(nn.Sequential(*layers), freeze=passed)


def test_what_a_class_of_ones_own_takes_is_its_own_affair_and_what_it_passes_on_is_not() -> None:
    assert Own("all", "backbone").freeze_part == "backbone"
    with pytest.raises(cl.UserError, match="freeze of Own is True\n  use one of 'backbone', None"):
        Own("all", passed=True)
