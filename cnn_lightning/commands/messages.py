"""What goes wrong in parsing and building, as errors of the user."""

from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from cnn_lightning.commands.explanations import explain
from cnn_lightning.commands.importing import guarded_parser
from cnn_lightning.errors import UserError

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


def _user_error_within(error: BaseException | None) -> UserError | None:
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error
