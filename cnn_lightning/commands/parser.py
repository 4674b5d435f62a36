"""The parser of the commands that are not Lightning's."""

import argparse
from typing import NoReturn

from typing_extensions import override

from cnn_lightning.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UserError`s: one line and a remedy, no usage dump.

    Args:
        command: Name of the command.
        description: What it does, shown by `--help`.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"cnn-lightning {command}", description=description, allow_abbrev=False
        )

    def add_checkpoint(self) -> None:
        """Add `checkpoint`, `--run`, `--log_dir`, `--root` and `--csv`: a network and its data."""
        self.add_argument("checkpoint", help="a checkpoint, a run, or last or best of --run")
        self.add_argument("--run", help="name of the run, for last and best")
        self.add_argument("--log_dir", default="logs", help="folder of all runs (default: logs)")
        self.add_argument(
            "--root", "--data.root", dest="root", help="folder of the data, if it has moved"
        )
        self.add_argument(
            "--csv", "--data.csv", dest="csv", help="table of the data, if it has moved"
        )

    @staticmethod
    def moved_data(arguments: argparse.Namespace) -> dict[str, str]:
        """Where the data are now, as arguments of their module that win over a checkpoint's."""
        places = {"root": arguments.root, "csv": arguments.csv}
        return {name: place for name, place in places.items() if place is not None}

    @override
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"see `{self.prog} --help`")
