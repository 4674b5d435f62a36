"""What the parser's long message comes down to."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cnn_lightning import classifiers, data, optim
from cnn_lightning.commands.importing import guarded_parser
from cnn_lightning.errors import UserError
from cnn_lightning.imports import refusal

# the layers of a union type, and what was given, which the telling lines repeat
_NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "usage:",
    "tip:",
)
_REWRITTEN = (
    (re.compile(r'Parser key "([^"]*)":?'), r"\1:"),
    (re.compile(r"Problem with given class_path '(?:[^']*\.)?([^'.]+)':"), r"\1:"),
    (re.compile(r"typing\.Literal\[(.*)\]"), r"one of \1"),
    (re.compile(r"Expected an? "), "expected "),
    (re.compile(r"<class '([^']*)'>"), r"\1"),
    (re.compile(r"SignatureArguments\.add_function_arguments\(\) .*"), "a function is no class"),
)
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_REFUSED_IMPORT = re.compile(r"Importing '([^']+)' is not allowed")
_LONGEST = 400
# what classes raise on arguments of the right type that they cannot be built with
_BY_VALUES = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, ImportError)


@contextmanager
def plain_errors(command: str) -> Iterator[None]:
    """Let what goes wrong in parsing and building leave the block as a `UserError`.

    Nothing that is not allowed is imported meanwhile.
    """
    try:
        with guarded_parser():
            yield
    except ArgumentError as error:
        raise _user_error_within(error) or explain(error, command) from error
    except MisconfigurationException as error:  # what Lightning notices when the run begins
        raise explain(error, command) from error


@contextmanager
def plain_building(command: str) -> Iterator[None]:
    """Let what a class raises that is built from settings leave the block as a `UserError`."""
    try:
        yield
    except MisconfigurationException as error:
        raise explain(error, command) from error
    except _BY_VALUES as error:
        # the parser wraps what a class that it builds raises
        raise _user_error_within(error) or explain(error, command) from error


def explain(error: BaseException, command: str) -> UserError:
    """Turn a parser's error into what is wrong and what to do about it.

    Example:
        >>> print(explain(ValueError("trainer: Expected a <class 'int'>"), "fit"))
        trainer: expected int
          see cnn-lightning fit --help
    """
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    text = " ".join(telling)
    unknown = _UNKNOWN_CLASS.search(text)
    refused = _REFUSED_IMPORT.search(text)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    if refused is not None:
        return refusal(refused[1], f"{text.partition(':')[0]}: ")
    if unknown is None:
        return UserError(text[:_LONGEST], f"see cnn-lightning {command} --help")
    key = text.partition(":")[0]
    known = _classes(key)
    near = difflib.get_close_matches(unknown[1], known, n=3, cutoff=0.5) or known[:8]
    return UserError(
        f"{key}: there is no class {unknown[1]}",
        f"perhaps {', '.join(near)}; a class of your own needs its import path and --allow_modules",
    )


def _user_error_within(error: BaseException | None) -> UserError | None:
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _classes(key: str) -> list[str]:
    if key == "model":
        return [name for name in classifiers.__all__ if name != "Predictions"]
    if key == "data":
        return [name for name in data.__all__ if name.endswith("DataModule")]
    if key == "schedule":
        return [*optim.__all__, *torch.optim.lr_scheduler.__all__]
    return [name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)]
