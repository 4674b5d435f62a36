"""A kill inside the writing of a checkpoint leaves the one before it, and damage is found."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest
import torch
from killing import LENET, STEPS, Recipe, different, make_recipe, print_table, stop_at

from cnn_lightning import checkpoint_io
from cnn_lightning.files import atomic_writer, load_checkpoint


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return make_recipe(LENET, tmp_path_factory.mktemp("stress"))


class KillingStream:
    """Passes on what is written, and kills the process after so many bytes."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self.stream, self.left = stream, left

    def write(self, content: bytes) -> int:
        self.stream.write(content[: self.left])
        self.left -= len(content)
        if self.left <= 0:
            self.stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(content)

    def flush(self) -> None:
        self.stream.flush()


def kill_in_writing(number: int, share: float) -> None:
    """A hook: this process dies in writing a checkpoint, once a share of it is written.

    Args:
        number: The checkpoints that are written before.
        share: 0..1.
    """
    written: list[int] = []

    @contextmanager
    def writer(path: Path) -> Iterator[object]:
        with atomic_writer(path) as stream:
            yield (
                KillingStream(stream, int(share * written[-1]))
                if len(written) == number
                else stream
            )
            written.append(stream.tell())

    checkpoint_io.atomic_writer = writer  # type: ignore[assignment]  # in a process of its own


def kill_in_writing_often(recipe: Recipe, title: str, times: int) -> None:
    draws = random.Random(title)
    table = [["run", "in checkpoint", "written", "whole then", "result"]]
    for index in range(times):
        run = f"{title}_{index}"
        number, share = draws.randint(1, 8), draws.uniform(0.001, 1)
        process = recipe.start(run, hook=partial(kill_in_writing, number, share))
        assert process.wait() == -signal.SIGKILL, process.output
        folder = recipe.folder(run)
        assert len(list(folder.checkpoints.glob(".*.part"))) == 1
        # best.ckpt may be the one that was written first
        whole = {path.name: load_checkpoint(path) for path in folder.checkpoints_to_resume()}
        steps = ", ".join(f"{name} of {whole[name]['global_step']}" for name in whole)
        process = recipe.start(run, "--ckpt_path", "last")
        assert process.wait() == 0, process.output
        found = different(recipe.folder("whole"), folder)
        result = "; ".join(found)[:2000] or "the same bits"
        table.append([f"{index}", f"{number + 1}", f"{share:.0%}", steps or "none", result])
    print_table(f"{title}: SIGKILL in the writing of a checkpoint", table)
    assert [row for row in table[1:] if row[-1] != "the same bits" or row[3] == "none"] == []


def test_a_kill_in_writing_leaves_a_whole_checkpoint(recipe: Recipe) -> None:
    kill_in_writing_often(recipe, "short", 2)


@pytest.mark.slow
def test_a_kill_at_any_byte_of_writing_leaves_a_whole_checkpoint(recipe: Recipe) -> None:
    kill_in_writing_often(recipe, "long", 20)


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flip(content: bytes) -> bytes:
    place = len(content) // 2  # in a tensor: torch.load reads it without a word
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [pytest.param(cut, marks=pytest.mark.slow), flip])
def test_a_damaged_last_checkpoint_gives_way_to_the_newest_whole_one(
    damage: Callable[[bytes], bytes], recipe: Recipe
) -> None:
    run = f"damaged_{damage.__name__}"
    process = recipe.start(run, hook=partial(stop_at, STEPS - 2))
    assert process.wait() == 128 + signal.SIGTERM
    folder = recipe.folder(run)
    last, best = (folder.checkpoints / name for name in ("last.ckpt", "best.ckpt"))
    last.write_bytes(damage(last.read_bytes()))
    if damage is flip:
        torch.load(last, weights_only=True)
    process = recipe.start(run, "--ckpt_path", "last")
    assert process.wait() == 0, process.output
    step = torch.load(best, weights_only=True)["global_step"]
    assert f"{last} is damaged: cut off, or changed since it was written; " in process.own_output
    assert f"taking {best} instead" in process.own_output
    assert process.steps[-1] == STEPS - 1
    assert process.steps[0] < STEPS - 2, step
    assert different(recipe.folder("whole"), folder) == []


def test_no_whole_checkpoint_is_a_mistake_and_no_new_start(recipe: Recipe) -> None:
    process = recipe.start("none", hook=partial(stop_at, 10))
    assert process.wait() == 128 + signal.SIGTERM
    for path in recipe.folder("none").checkpoints.iterdir():
        path.write_bytes(cut(path.read_bytes()))
    for asked in ("last", "auto"):
        process = recipe.start("none", "--ckpt_path", asked)
        assert process.wait() == 2
        assert process.steps == []
        told, remedy = process.own_output.splitlines()
        for name in ("last.ckpt", "best.ckpt"):
            path = recipe.folder("none").checkpoints / name
            assert f"{path} is damaged: cut off, or changed since it was written" in told
        assert remedy == "  leave --ckpt_path out to start anew"
