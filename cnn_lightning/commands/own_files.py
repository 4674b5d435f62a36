"""`predict` on files of the user's own: the data module that reads them, as the checkpoint says."""

from pathlib import Path
from typing import Any

from cnn_lightning.checkpoint_content import CHECKPOINT_KEY
from cnn_lightning.errors import UserError

_CLASS = "cnn_lightning.UnlabelledDataModule"
_FLAGS = ("--data.paths", "--data.init_args.paths")


def names_files(argv: list[str], configs: list[dict[str, Any]]) -> bool:
    """Whether a command line asks for files instead of the data of the checkpoint.

    Args:
        argv: Flags as the user wrote them.
        configs: What is in the config files.

    Raises:
        UserError: It asks for files, and for another data module.
    """
    in_argv = any(arg.partition("=")[0].removesuffix("+") in _FLAGS for arg in argv)
    given = [config["data"] for config in configs if config.get("data") is not None]
    in_configs = any(isinstance(one, dict) and "paths" in _arguments(one) for one in given)
    if not (in_argv or in_configs):
        return False
    for data in given:
        name = data.get("class_path", _CLASS) if isinstance(data, dict) else data
        if str(name).rpartition(".")[2] != _CLASS.rpartition(".")[2]:
            raise UserError(
                f"--data.paths names files, and a config names {name}",
                "leave the config out and name the run: --run NAME --ckpt_path best",
            )
    return True


def file_settings(path: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The data module that prepares files as the validation of a checkpoint prepared its images.

    Args:
        path: Where the checkpoint is.
        checkpoint: Its content, checked.

    Raises:
        UserError: The classifier has seen no data.
    """
    ours = checkpoint[CHECKPOINT_KEY]
    if not (ours["class_names"] and ours["image_shape"] and ours["preprocessing"]):
        raise UserError(f"{path} does not know its classes", "train it with a data module")
    arguments = {
        "class_names": ours["class_names"],
        "image_shape": ours["image_shape"],
        "mean": ours["preprocessing"]["mean"],
        "std": ours["preprocessing"]["std"],
    }
    # as many as have fitted into memory
    size = checkpoint.get("datamodule_hyper_parameters", {}).get("eval_batch_size")
    if isinstance(size, int):
        arguments["eval_batch_size"] = size
    return {"class_path": _CLASS, "init_args": arguments}


def _arguments(data: dict[str, Any]) -> dict[str, Any]:
    arguments = data.get("init_args")
    return arguments if isinstance(arguments, dict) else data
