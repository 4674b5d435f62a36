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

    @override
    def error(self, message: str) -> NoReturn:
        raise UserError(message, f"see `{self.prog} --help`")
