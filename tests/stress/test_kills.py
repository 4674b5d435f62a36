"""A run that is killed at any moment, resumed and killed again ends with the same bits."""

import os
import random
import shlex
import signal
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from killing import (
    FROZEN,
    LENET,
    STEPS,
    Process,
    Recipe,
    different,
    make_recipe,
    print_table,
    stop_at,
)

from cnn_lightning.callbacks import FeatureMaps
from cnn_lightning.runs import RunFolder

RECIPES = {"lenet": LENET, "frozen backbone": FROZEN}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recipe]:
    return cache(lambda name: make_recipe(RECIPES[name], tmp_path_factory.mktemp("stress")))


def kill_twice(
    recipe: Recipe, run: str, number: signal.Signals, draws: random.Random, last_step: int
) -> list[str]:
    """Kill a run, resume it, kill it again and let it end; what differs from the whole run.

    Args:
        recipe: What runs.
        run: Its name.
        number: The signal.
        draws: Decide when.
        last_step: The last to send it in or after.

    Returns:
        A row of a table: moments of the signals, steps done by then, result.
    """
    cells = []
    steps: list[int] = []
    problems = []
    for _ in range(2):
        # one in ten before the first step; else up to the drawing and writing at an epoch's end
        early = draws.random() < 0.1
        step = -1 if early else draws.randint(min(max(steps, default=0), last_step), last_step)
        process = recipe.start(run, "--ckpt_path", "auto")
        code, moment = process.signal_at(step, draws.uniform(0, 2 if early else 0.15), number)
        wanted = {-signal.SIGKILL} if number == signal.SIGKILL else {128 + number}
        if code not in wanted | {0}:
            problems.append(f"exit code {code}: {process.own_output[-300:]}")
        if number == signal.SIGTERM:
            problems += follows(steps, process.steps)
        steps += process.steps
        told = f"in step {steps[-1] + 1:>2}" if process.steps else "before a step"
        cells += [f"{moment:.2f} s", told if code else "had ended"]
    process = recipe.start(run, "--ckpt_path", "auto")
    if process.wait() != 0:
        problems.append(f"the last process failed: {process.own_output[-300:]}")
    elif number == signal.SIGTERM:
        problems += follows(steps, process.steps)
    again = len(steps) + len(process.steps) - STEPS
    problems += different(recipe.folder("whole"), recipe.folder(run))
    return [*cells, f"{again:>2}", "; ".join(problems)[:2000] or "the same bits"]


def follows(before: list[int], steps: list[int]) -> list[str]:
    """Whether a process began at the step after the last of those before it."""
    expected = before[-1] + 1 if before else 0
    if steps and steps[0] != expected:
        return [f"went on at step {steps[0]} and not {expected}"]
    return []


def kill_often(
    recipe: Recipe, title: str, number: signal.Signals, times: int, last_step: int = STEPS - 1
) -> None:
    draws = random.Random(title)
    head = ["run", "signal at", "", "again at", "", "steps twice", "result"]
    table = [
        [
            f"{index}",
            # not the name of another test's run: their recipes may share a folder
            *kill_twice(recipe, f"{number.name}_{index}_of_{times}", number, draws, last_step),
        ]
        for index in range(times)
    ]
    print_table(f"{title}, {number.name}", [head, *table])
    failed = [row for row in table if row[-1] != "the same bits"]
    assert not failed, "\n".join(map(str, failed))
    assert any(row[2] != "had ended" for row in table), "no run was hit"
    if number == signal.SIGTERM:
        assert all(row[-2].strip() == "0" for row in table)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", ["lenet", pytest.param("frozen backbone", marks=pytest.mark.slow)])
def test_killed_twice_ends_with_the_same_bits(
    name: str, number: signal.Signals, recipe: Callable[[str], Recipe]
) -> None:
    kill_often(recipe(name), f"short: {name}", number, times=1, last_step=2 * STEPS // 3)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 20), (signal.SIGTERM, 10)])
@pytest.mark.parametrize("name", RECIPES)
def test_killed_twice_at_many_moments_ends_with_the_same_bits(
    name: str, number: signal.Signals, times: int, recipe: Callable[[str], Recipe]
) -> None:
    kill_often(recipe(name), name, number, times)


def test_a_moved_run_remembers_its_best(recipe: Callable[[str], Recipe], tmp_path: Path) -> None:
    lenet = recipe("lenet")
    process = lenet.start("moved", hook=partial(stop_at, 2 * STEPS // 3))  # two epochs are done
    assert process.wait() == 128 + signal.SIGTERM
    moved = tmp_path / "elsewhere/moved/version_0"
    moved.parent.mkdir(parents=True)
    lenet.folder("moved").path.rename(moved)
    process = lenet.start("moved", "--log_dir", str(tmp_path / "elsewhere"), "--ckpt_path", "last")
    assert process.wait() == 0, process.output
    assert different(lenet.folder("whole"), RunFolder(moved)) == []


def test_the_last_line_is_the_command_that_goes_on(recipe: Callable[[str], Recipe]) -> None:
    lenet = recipe("lenet")
    process = lenet.start("told", hook=partial(stop_at, 5))
    assert process.wait() == 128 + signal.SIGTERM
    said, _, command = process.output.splitlines()[-1].partition("Go on with: cnn-lightning ")
    assert said.startswith("stopped by SIGTERM; ")
    assert "step 6" in said
    process = Process(shlex.split(command), lenet.log_dir / "told.txt")
    assert process.wait() == 0, process.output
    assert process.steps == list(range(6, STEPS))
    assert different(lenet.folder("whole"), lenet.folder("told")) == []


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_before_the_first_step_ends_the_run_at_once(
    number: signal.Signals, recipe: Callable[[str], Recipe]
) -> None:
    lenet = recipe("lenet")
    run = f"early_{number.name}"
    process = lenet.start(run, hook=partial(signal_while_drawing, number))
    assert process.wait() == 128 + number
    assert process.steps == []
    told = process.output.splitlines()[-1]
    assert told.startswith(f"stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}; ")
    assert told.endswith(f"Start again with: cnn-lightning {shlex.join(lenet.arguments(run))}")


def signal_while_drawing(number: signal.Signals) -> None:
    def draw(*args: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    FeatureMaps.draw = draw  # type: ignore[assignment,method-assign]  # in a process of its own
