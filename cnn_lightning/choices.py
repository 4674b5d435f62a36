"""Arguments that take one of a few values."""

from typing import Any, get_args

from cnn_lightning.errors import UserError


def check_choice(name: str, value: object, kind: Any) -> None:
    """Refuse what is none of the values that a type names.

    Configs and flags are held against types; what Python code gives is not, and a misspelt choice
    would be taken for another, or for none.

    Args:
        name: That of the argument.
        value: What is given for it.
        kind: A `Literal`.

    Raises:
        UserError: The value is none of them.

    Example:
        >>> from typing import Literal
        >>> check_choice("stem", "small", Literal["small", "imagenet"])
        >>> check_choice("stem", "big", Literal["small", "imagenet"])
        Traceback (most recent call last):
        cnn_lightning.errors.UserError: stem is 'big'
          use one of 'small', 'imagenet'
    """
    choices = get_args(kind)
    if value not in choices:
        raise UserError(f"{name} is {value!r}", f"use one of {', '.join(map(repr, choices))}")
