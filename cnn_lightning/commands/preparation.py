"""How images are prepared for a checkpoint: as they were for its training, whatever is at hand."""

from typing import Any

from jsonargparse import Namespace

from cnn_lightning.checkpoint_content import CHECKPOINT_KEY
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import UserError

_SETTINGS = (("data", "mean"), ("data", "std"), ("model", "image_size"))


def expect_its_shape(data: ImageDataModule, checkpoint: dict[str, Any]) -> None:
    """Let data whose size nobody asks for have that of a checkpoint's images.

    Args:
        data: Nothing is read from it yet.
        checkpoint: Its content, checked.
    """
    if shape := checkpoint[CHECKPOINT_KEY]["image_shape"]:
        data.expect_shape(tuple(shape))


def keep_preparation(config: Namespace, known: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    """Refuse settings that would prepare images in another way than a checkpoint's.

    Args:
        config: What is asked for; a `null` becomes what the run had.
        known: The settings that the run or the checkpoint brings along.
        checkpoint: Its content, checked.

    Raises:
        UserError: There is one. The weights were trained with the checkpoint's preparation, and it
            is the one that holds.
    """
    ours = checkpoint[CHECKPOINT_KEY]
    if not ours["preprocessing"]:
        return
    for group, name in _SETTINGS:
        arguments = config.get(group, {}).get("init_args") or {}
        if name not in arguments:
            continue
        before = _plain(_init_args(known.get(group)).get(name))
        if arguments[name] is None:
            arguments[name] = before
        asked, stored = _plain(arguments[name]), _stored(ours, name)
        if asked not in (before, stored):
            raise UserError(
                f"{group}.{name} is {asked}, the images of the checkpoint were prepared with "
                f"{stored}",
                "leave it out, or start a new run without --ckpt_path",
            )


def _stored(ours: dict[str, Any], name: str) -> Any:
    """A constant of the preparation, or the side of the images that the network takes."""
    if name != "image_size":
        return ours["preprocessing"][name]
    return ours["preprocessing"]["size"] or (ours["image_shape"] or [None])[-1]


def _init_args(spec: Any) -> dict[str, Any]:
    arguments = spec.get("init_args") if isinstance(spec, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
