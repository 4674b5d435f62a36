"""What README.md tells people to type: its files, its Python, and its commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cnn_lightning.cli import COMMANDS

README = Path(__file__).parents[1] / "README.md"
# programs of others that the README names; what they do is not ours to test
OTHERS = (
    *("python3", ".", "pip", "ruff", "lint-imports", "mypy", "pytest", "tensorboard"),
    *("chromium", "sbatch"),
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.(?:py|yaml))\b")
_INLINE = re.compile(r"`((?:cnn-lightning )?([a-z]+) [^`]*)`")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str


def read() -> str:
    return README.read_text(encoding="utf-8")


def blocks(text: str | None = None) -> list[Block]:
    return [Block(*match.groups()) for match in _FENCE.finditer(read() if text is None else text)]


def files(text: str | None = None) -> dict[str, str]:
    """Files that a comment in a block's first line names; blocks of one name are one file."""
    found: dict[str, str] = {}
    for block in blocks(text):
        if (name := _FILE.match(block.text)) is not None:
            found[name[1]] = "\n\n".join(filter(None, [found.get(name[1]), block.text]))
    return found


def commands(text: str | None = None) -> list[str]:
    """The commands of all blocks of bash, and those that stand in a sentence or a table."""
    whole = read() if text is None else text
    found = [
        shlex.join(command)
        for block in blocks(whole)
        if block.language in ("bash", "sh", "shell", "console")
        for command in split(block.text)
    ]
    for inline, first in _INLINE.findall(_FENCE.sub("", whole)):
        is_whole = inline.startswith("cnn-lightning ") and "…" not in inline
        if is_whole or (first in COMMANDS and " --" in inline and "…" not in inline):
            found.append(inline if is_whole else f"cnn-lightning {inline}")
    return list(dict.fromkeys(found))


def split(script: str) -> Iterator[list[str]]:
    """The simple commands of a shell script, a list of words each."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def ours(command: str) -> list[str] | None:
    """The arguments of our program in a command; `None` if it is another's that is known.

    Raises:
        AssertionError: There is no such program.
    """
    words = shlex.split(command)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if words[0] == "srun":
        words = words[1:]
    if words[0] == "torchrun" and "cnn_lightning" in words:
        words = ["cnn-lightning", *words[words.index("cnn_lightning") + 1 :]]
        words.remove("--")
    if words[:3] == ["python", "-m", "cnn_lightning"]:
        words = ["cnn-lightning", *words[3:]]
    if words[0] == "cnn-lightning":
        return words[1:]
    is_file = words[0] == "python" and words[1] in files()
    assert is_file or words[0] in OTHERS, f"README: {words[0]!r} is no program that is known"
    return None
