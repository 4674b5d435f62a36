"""What a mistake in a config comes down to, in a line and a remedy."""

import difflib
import re
from collections.abc import Iterable

from cnn_lightning.commands.options import CLASS_GROUPS
from cnn_lightning.errors import UserError
from cnn_lightning.imports import refusal
from cnn_lightning.signatures import class_names

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
    (re.compile(r"\] Expected a typing\.Literal\["), ", "),  # one list of several
    (re.compile(r"typing\.Literal\[([^]]*)\]"), r"one of \1"),
    (re.compile(r"Expected an? "), "expected "),
    (re.compile(r"<class '([^']*)'>"), r"\1"),
    # of a type that may be one of several
    (re.compile(r"(expected \w+) (?=expected |Missing |Unexpected )"), r"\1, or "),
    (re.compile(r"SignatureArguments\.add_function_arguments\(\) .*"), "a function is no class"),
)
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
# a number that may be a tensor, such as a rate: what is no number is taken for a class, too
_NO_NUMBER = re.compile(r"(Expected a <class 'float'>) Expected a dot import path string: \S+")
_REFUSED_IMPORT = re.compile(r"Importing '([^']+)' is not allowed")
_NO_GPU = re.compile(r"No supported gpu backend|(CUDA|MPS)Accelerator` can not run on your system")
_FEWER_EPOCHS = re.compile(r"a checkpoint with current_epoch=(\d+), .*max_epochs=(\d+)")
_ABSTRACT = re.compile(r"instantiatable class, but .*is abstract")
_LONGEST = 400


def explain(error: BaseException, command: str) -> UserError:
    """Turn a parser's error into what is wrong and what to do about it.

    Example:
        >>> print(explain(ValueError("trainer: Expected a <class 'int'>"), "fit"))
        trainer: expected int
          see cnn-lightning fit --help
    """
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    text = _NO_NUMBER.sub(r"\1", " ".join(telling))
    unknown = _UNKNOWN_CLASS.search(text)
    refused = _REFUSED_IMPORT.search(text)
    is_abstract = _ABSTRACT.search(text) is not None
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    key = text.partition(":")[0]
    if refused is not None:
        return refusal(refused[1], f"{key}: ")
    if is_abstract and key in CLASS_GROUPS:
        return _unnamed_class(key)
    if (epochs := _FEWER_EPOCHS.search(text)) is not None:
        begun = int(epochs[1]) + 1
        return UserError(
            f"the checkpoint is of epoch {begun}, and trainer.max_epochs is {epochs[2]}",
            f"give --trainer.max_epochs above {begun}",
        )
    if _NO_GPU.search(text) is not None:
        return UserError(
            "there is no GPU that torch can use",
            "train on the CPU, without --trainer.accelerator; or install a GPU's driver and a "
            "torch built for it",
        )
    if unknown is None:
        return UserError(text[:_LONGEST], f"see cnn-lightning {command} --help")
    return unknown_class(key, unknown[1])


def _unnamed_class(key: str) -> UserError:
    """The error that a class was not named, or not before its settings, so its base stands in."""
    base, _ = CLASS_GROUPS[key]
    return UserError(
        f"{key}: {base} is the base of others and does nothing by itself",
        f"name one of them, before its settings: --{key} {known_classes(key)[0]} --{key}.…",
    )


def unknown_class(key: str, name: str) -> UserError:
    """The error that there is no such class.

    Args:
        key: The setting that names it: `model`, `data`, `optimizer` or `schedule`.
        name: As it was written.
    """
    known = known_classes(key)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:8]
    perhaps = f"perhaps {', '.join(near)}; " if near else ""
    return UserError(
        f"{key}: there is no class {name}",
        f"{perhaps}a class of your own needs its import path and --allow_modules",
    )


def unknown_key(command: str, key: str, known: Iterable[str]) -> UserError:
    """The error that there is no such option.

    Args:
        command: Whose option it would be.
        key: As it was written, a flag with its dashes.
        known: Options that could have been meant.
    """
    name, options = key.lstrip("-").replace(".init_args", ""), [*known]
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.7)
    near = near or difflib.get_close_matches(name.partition(".")[0], options, n=1)
    perhaps = f"perhaps {near[0]}; " if near else ""
    return UserError(
        f"{command} has no option {key}", f"{perhaps}see cnn-lightning {command} --help"
    )


def known_classes(key: str) -> list[str]:
    """Classes that a setting can name by their name alone."""
    if key not in CLASS_GROUPS:
        return []
    base, modules = CLASS_GROUPS[key]
    return [name for module in modules for name in class_names(module, base)]
