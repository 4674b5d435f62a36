"""Choices that are none: refused where Python code gives them, as in a config."""

from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import cnn_lightning as cl

OF_CLASSIFIERS = ("freeze", "layout", "schedule_interval", "test_augment")
ROWS: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
    (cl.LeNet, {"num_classes": 2}, (*OF_CLASSIFIERS, "activation", "pooling")),
    (cl.VGG16, {"num_classes": 2}, ("stem",)),
    (cl.ResNet, {"num_classes": 2}, ("depth", "stem")),
    (cl.Inception, {"num_classes": 2, "version": "googlenet"}, ("stem",)),
    (cl.Inception, {"num_classes": 2}, ("version", "stem")),
    (cl.ShapesDataModule, {}, ("augment", "crop_border", "sampling")),
    (cl.MNISTDataModule, {}, ("variant",)),
    (cl.ImageFolderDataModule, {"root": "photos"}, ("channels",)),
]
CASES = [(kind, known, name) for kind, known, names in ROWS for name in names]
PARTS = (cl.ImageClassifier, cl.ImageDataModule)


def is_choice(kind: Any) -> bool:
    parts = (kind,) if get_origin(kind) is Literal else get_args(kind)
    return bool(parts) and all(part is type(None) or get_origin(part) is Literal for part in parts)


@pytest.mark.parametrize("value", ["another", ""])
@pytest.mark.parametrize(("kind", "known", "name"), CASES)
def test_a_choice_that_is_none_is_refused(
    kind: Any, known: dict[str, Any], name: str, value: str
) -> None:
    with pytest.raises(cl.UserError, match=f"^{name} is {value!r}\n  use one of "):
        kind(**known, **{name: value})


def test_every_choice_of_a_public_class_has_a_case() -> None:
    kinds = [thing for name in cl.__all__ if isinstance(thing := getattr(cl, name), type)]
    found = {
        name
        for kind in kinds
        if issubclass(kind, PARTS)
        for one in kind.__mro__
        if one.__module__.startswith("cnn_lightning") and "__init__" in vars(one)
        for name, type_ in get_type_hints(vars(one)["__init__"]).items()
        if is_choice(type_)
    }
    assert found == {name for _, _, name in CASES}
