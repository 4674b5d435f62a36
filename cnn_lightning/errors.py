"""The exceptions that end a command with a message instead of a traceback."""

import signal

_LONGEST = 800  # letters of each of the two parts; a value from a file may be longer


class PlainError(Exception):
    """What the two kinds of told errors share.

    Args:
        what: What is wrong, naming the file, key or value.
        remedy: What to do about it; printed indented below `what`.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        what, remedy = (_shorten(printable(text)) for text in (self.what, self.remedy))
        return f"{what}\n  {remedy}" if remedy else what

    def __reduce__(self) -> "tuple[type[PlainError], tuple[str, str]]":
        return type(self), (self.what, self.remedy)  # crosses process boundaries whole


class UserError(PlainError):
    """A mistake that the user can mend: shown as one or a few lines, exit code 2.

    Example:
        >>> print(UserError("photos/cat holds no images", "put .jpg or .png files there"))
        photos/cat holds no images
          put .jpg or .png files there
    """


class RunError(PlainError):
    """A run that was asked for rightly and failed: shown as one or a few lines, exit code 1.

    Example:
        >>> print(RunError("the loss is nan at step 12", "go on with a lower learning rate"))
        the loss is nan at step 12
          go on with a lower learning rate
    """


class SharedRunError(RunError):
    """A failure that all processes of a run meet at once: the first one tells."""


class LostProcessError(RunError):
    """A run whose processes are no longer all there."""


class DamagedFileError(UserError):
    """A file that is not what was written: cut off, or with bits that flipped."""


class MissingDataError(UserError):
    """Files of a data set that are not there: another split of it may be whole."""


def printable(text: str) -> str:
    r"""One line of text that leaves a terminal as it is; what would not is escaped.

    Names and values of files may hold line breaks, control sequences, or bytes that are no text.

    Example:
        >>> printable("cat\x1b[2J.png")
        'cat\\x1b[2J.png'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _shorten(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


class Interrupted(BaseException):
    """The command was asked to stop by a signal.

    A `BaseException`, as `KeyboardInterrupt` is: nothing should mistake it for a failure.

    Args:
        signal_number: SIGINT or SIGTERM, in a SLURM job SIGUSR1 too.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number

    def __str__(self) -> str:
        is_ctrl_c = self.signal_number == signal.SIGINT
        return f"stopped by {'Ctrl-C' if is_ctrl_c else signal.Signals(self.signal_number).name}"

    @property
    def exit_code(self) -> int:
        """What a shell reports of a process that a signal ended."""
        return 128 + self.signal_number
