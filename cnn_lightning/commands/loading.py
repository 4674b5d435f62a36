"""Classifiers and data from a checkpoint alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from cnn_lightning import classifiers, data
from cnn_lightning.checkpoint_content import CHECKPOINT_KEY, Content
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.optimization import find_class
from cnn_lightning.commands.explanations import explain
from cnn_lightning.commands.importing import guarded_parser
from cnn_lightning.commands.preparation import expect_its_shape
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.preprocessing import Preprocessing
from cnn_lightning.runs import checkpoints_of, find_checkpoint, names_run, similar_runs

_Class = TypeVar("_Class")


def find_path(asked: str, run: str | None, log_dir: Path) -> Path:
    """The checkpoint that a command line names.

    Args:
        asked: A path, a run (its folder or name), whose best is taken, or `last` or `best`.
        run: The run, for `last` and `best`.
        log_dir: What holds all runs.

    Raises:
        UserError: There is no such checkpoint.
    """
    if asked not in ("last", "best"):
        if names_run(log_dir, asked):
            return checkpoints_of(log_dir, asked, "best")[0]
        if not Path(asked).is_file():
            raise UserError(
                f"there is no checkpoint {asked}", "give the path of one, or --run NAME best"
            )
        return Path(asked)
    if run is None:
        raise UserError(f"{asked} of which run?", "give --run NAME, or the path of a checkpoint")
    found = find_checkpoint(log_dir, run, asked)
    if found is None:
        near = similar_runs(log_dir, run)
        perhaps = f"perhaps {', '.join(near)}; " if near and run not in near else ""
        raise UserError(
            f"no run {run} in {log_dir} has a {asked}.ckpt", f"{perhaps}check --run and --log_dir"
        )
    return found


def load_classifier(path: Path) -> ImageClassifier:
    """Build a classifier as it was saved, on the CPU and in eval mode.

    Its class is the one named in the checkpoint: one of the project by its name, any other by its
    import path. The weights are those of the checkpoint; where they once came from is not asked.

    Args:
        path: A checkpoint written by `fit`.

    Raises:
        UserError: The file is missing, damaged, not of this project, or does not fit its class.
    """
    checkpoint = _read(path)
    name = checkpoint[CHECKPOINT_KEY]["classifier"]
    kind = _find_class(name, ImageClassifier, [classifiers])
    _check_arguments(kind, checkpoint.get("hyper_parameters", {}), path)
    try:
        classifier = kind.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except (RuntimeError, TypeError, ValueError, LookupError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"{path} does not fit {kind.__name__}: {reason}",
            "use the version of the class that wrote it",
        ) from error
    return classifier.eval()


def load_data(path: Path, **overrides: Any) -> ImageDataModule:
    """Build the data module that a checkpoint was trained with; nothing is read from it yet.

    It prepares images as the checkpoint's classifier takes them.

    Args:
        path: A checkpoint written by `fit`.
        **overrides: Arguments of the data module that win over the stored ones, such as `root`.

    Raises:
        UserError: The file is missing, damaged, not of this project, knows no data, or the data
            module does not take the arguments.
    """
    checkpoint = _read(path)
    stored = checkpoint[CHECKPOINT_KEY]
    if stored["data"] is None:
        raise UserError(f"{path} does not know its data", "give images with --images")
    kind = _find_class(stored["data"], ImageDataModule, [data])  # type: ignore[type-abstract]
    arguments = {**checkpoint.get("datamodule_hyper_parameters", {}), **overrides}
    _check_arguments(kind, arguments, path)
    try:
        module = kind(**arguments)
    except (TypeError, ValueError, LookupError) as error:
        raise UserError(f"{kind.__name__}: {error}", f"{path} was made with {arguments}") from error
    expect_its_shape(module, checkpoint)
    if stored["preprocessing"]:
        module.preprocessing = Preprocessing.from_dict(stored["preprocessing"])
    return module


def _read(path: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    if CHECKPOINT_KEY not in checkpoint:
        raise UserError(f"{path} was not written by cnn-lightning", "give a checkpoint of a run")
    Content(checkpoint, path).check_ours()
    return checkpoint


def _check_arguments(kind: type, arguments: dict[str, Any], path: Path) -> None:
    """Refuse arguments that the parser of `fit` would not take for a class."""
    with guarded_parser():
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(kind, fail_untyped=False)
        try:
            parser.parse_object(arguments)
        except ArgumentError as error:
            what = explain(error, "fit").what
            raise UserError(
                f"{path} does not fit {kind.__name__}: {what}",
                "use the version of the class that wrote it",
            ) from error


def _find_class(class_path: str, base: type[_Class], modules: list[Any]) -> type[_Class]:
    """A class of the project by its name, one that is imported already, or one to import."""
    if class_path.startswith("cnn_lightning."):
        return find_class(class_path.rpartition(".")[2], base, modules)
    imported = [
        kind
        for kind in _descendants(base)
        if f"{kind.__module__}.{kind.__qualname__}" == class_path
    ]
    if imported:
        return imported[-1]  # the newest, where it was defined again, as in a notebook
    return find_class(class_path, base, modules)


def _descendants(base: type[_Class]) -> Iterator[type[_Class]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _descendants(kind)
