"""Damaged and hostile checkpoints: refused in a few lines, or used as exactly what they say."""

import collections
import copy
import io
import math
import os
import pickle
import random
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from compare import differences

from cnn_lightning.cli import main

# as outside of tests, where a warning is not an error
pytestmark = pytest.mark.filterwarnings("default")

RECIPE = """
data: {class_path: ShapesDataModule, init_args: {num_images: 60, num_test: 20, batch_size: 32}}
model: {class_path: LeNet, init_args: {batch_norm: true}}
trainer: {max_epochs: 2, enable_progress_bar: false, enable_model_summary: false}
activation_statistics: {every_n_epochs: 0}
feature_maps: {every_n_epochs: 0}
kernels: {every_n_epochs: 0}
"""
LAST = Path("logs/small/version_0/checkpoints/last.ckpt")
COMMANDS = ("fit", "fit", "fit", "test", "inspect", "weights")
# what a value of a checkpoint may become
VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "negative": lambda: -5,
    "huge": lambda: 10**30,
    "a fraction": lambda: 0.3,
    "true": lambda: True,
    "text": lambda: "\x1b[2Jtext",
    "function": lambda: "os.system",
    "module": lambda: "canary_of_checkpoints.Mine",
    "spec": lambda: {"class_path": "canary_of_checkpoints.Mine", "init_args": {}},
    "list": lambda: [1, "a"],
    "map": lambda: {"a": 1},
    "empty list": list,
    "empty map": dict,
    "tensor": lambda: torch.ones(3),
    "number of a tensor": lambda: torch.tensor(0.5),
    "tensor of more than memory": lambda: torch.zeros(1).expand(10**13),
    "complex tensor": lambda: torch.zeros(2, dtype=torch.complex64),
    "sparse tensor": lambda: torch.eye(3).to_sparse(),
    "tensor without content": lambda: torch.empty(10**9, device="meta"),
}


class Case(NamedTuple):
    """A checkpoint, how it is made, and whether other results than the good one's are right."""

    name: str
    write: Callable[[Path], object]
    may_differ: bool = False


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sign,)


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*at, key))


def branch_of(tree: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        tree = tree[key]
    return tree


def is_alike(old: Any, new: Any) -> bool:
    """Whether a value says another thing of the same kind, which is then what was asked for."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        return old.shape == new.shape
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return isinstance(old, bool) == isinstance(new, bool)
    return isinstance(old, str) and isinstance(new, str)


def trees_changed(good: dict[str, Any]) -> Iterator[Case]:
    for place in places(good):
        name = ".".join(map(str, place))
        old = branch_of(good, place)[place[-1]]
        for kind, make in VALUES.items():

            def put(path: Path, place: Any = place, make: Any = make) -> None:
                tree = copy.deepcopy(good)
                branch_of(tree, place)[place[-1]] = make()
                torch.save(tree, path)

            may_differ = is_alike(old, make()) if kind != "tensor of more than memory" else False
            yield Case(f"{name} becomes {kind}", put, may_differ)

        def leave_out(path: Path, place: Any = place) -> None:
            tree = copy.deepcopy(good)
            del branch_of(tree, place)[place[-1]]
            torch.save(tree, path)

        yield Case(f"{name} is left out", leave_out)
        if isinstance(old, dict):

            def add(path: Path, place: Any = place) -> None:
                tree = copy.deepcopy(good)
                branch_of(tree, place)[place[-1]]["more"] = 1
                torch.save(tree, path)

            yield Case(f"{name} has more", add)
        if isinstance(old, torch.Tensor) and old.ndim:

            def convert(path: Path, place: Any = place) -> None:
                tree = copy.deepcopy(good)
                branch = branch_of(tree, place)
                branch[place[-1]] = branch[place[-1]].to(torch.int32)
                torch.save(tree, path)

            yield Case(f"{name} becomes integers", convert)


def bytes_changed(good: dict[str, Any], draws: random.Random) -> Iterator[Case]:
    stream = io.BytesIO()
    torch.save(good, stream)
    content = stream.getvalue()
    for number in range(40):
        damaged = bytearray(content)
        place = draws.randrange(len(damaged))
        kind = ("flip", "cut", "drop", "insert", "zero")[number % 5]
        if kind == "flip":
            damaged[place] ^= 1 << draws.randrange(8)
        elif kind == "cut":
            del damaged[place:]
        elif kind == "drop":
            del damaged[place : place + draws.randrange(1, 300)]
        elif kind == "insert":
            damaged[place:place] = bytes(draws.randrange(256) for _ in range(20))
        else:
            damaged[place : place + 64] = bytes(len(damaged[place : place + 64]))

        def write(path: Path, damaged: bytes = bytes(damaged)) -> None:
            path.write_bytes(damaged)

        yield Case(f"bytes {number}: {kind} at {place}", write)


def compressed(good: dict[str, Any], path: Path) -> None:
    stream = io.BytesIO()
    torch.save({**good, "more": torch.zeros(10_000_000)}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


def hostile(good: dict[str, Any], outside: Path, sign: Path) -> Iterator[Case]:
    """Content, files and places that somebody made up."""
    save = torch.save
    ring: list[Any] = []
    ring.append(ring)
    bomb: list[Any] = ["x"]
    for _ in range(40):
        bomb = [bomb, bomb]
    weights = good["state_dict"]
    (best,) = (key for key in good["callbacks"] if key.startswith("BestCheckpoint"))

    def with_paths(path: Path) -> None:
        tree = copy.deepcopy(good)
        state = tree["callbacks"][best]
        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        state.update(dict.fromkeys(names, str(outside)))
        state["best_k_models"] = {str(outside): torch.tensor(-1.0)}
        state["dirpath"] = str(outside.parent)
        state.update(dict.fromkeys(("best_model_score", "kth_value"), torch.tensor(-1.0)))
        save(tree, path)

    def of_hyperparameters(**more: Any) -> Callable[[Path], object]:
        tree = {**good, "hyper_parameters": {**good["hyper_parameters"], **more}}
        return lambda path: save(tree, path)

    def in_place_of(make: Callable[[Path], object]) -> Callable[[Path], object]:
        return lambda path: (path.unlink(missing_ok=True), make(path))

    files: dict[str, Callable[[Path], object]] = {
        "code in its pickle": lambda path: save({**good, "more": Evil(sign)}, path),
        "code in its hyperparameters": of_hyperparameters(activation=Evil(sign)),
        "code, as a plain pickle": lambda path: path.write_bytes(pickle.dumps(Evil(sign))),
        "code, in the old format": lambda path: save(
            {**good, "more": Evil(sign)}, path, _use_new_zipfile_serialization=False
        ),
        "compressed": lambda path: compressed(good, path),
        "empty": lambda path: path.write_bytes(b""),
        "a text": lambda path: path.write_text("hello"),
        "an archive of a text": lambda path: zipfile.ZipFile(path, "w").writestr("a", "hello"),
        "only weights": lambda path: save(weights, path),
        "weights of another project": lambda path: save({"model": weights, "epoch": 3}, path),
        "plain Lightning": lambda path: save(
            {key: value for key, value in good.items() if key != "cnn_lightning"}, path
        ),
        "a list": lambda path: save([1, 2], path),
        "a tensor": lambda path: save(torch.ones(3), path),
        "an empty map": lambda path: save({}, path),
        "counter of words": lambda path: save({**good, "m": collections.Counter("ab")}, path),
        "a ring": lambda path: save({**good, "more": ring}, path),
        "lists within lists": lambda path: save({**good, "more": bomb}, path),
        "what to call": of_hyperparameters(
            _instantiator="lightning.pytorch.cli.instantiate_module",
            _class_path="canary_of_checkpoints.Mine",
        ),
        "weights to fetch": of_hyperparameters(weights="/etc/passwd"),
        "paths of others": with_paths,
        "folder": in_place_of(lambda path: path.mkdir()),
        "pipe": in_place_of(lambda path: os.mkfifo(path)),
        "link to nowhere": in_place_of(lambda path: path.symlink_to(outside.parent / "nowhere")),
        "link to itself": in_place_of(lambda path: path.symlink_to(path)),
        "without a name of its version": lambda path: save(
            {**good, "pytorch-lightning_version": "0.7.1"}, path
        ),
        "of the next format": lambda path: save(
            {**good, "cnn_lightning": {**good["cnn_lightning"], "format": 2}}, path
        ),
        "of a format that is no number": lambda path: save(
            {**good, "cnn_lightning": {**good["cnn_lightning"], "format": torch.ones(2)}}, path
        ),
        "old format": lambda path: save(good, path, _use_new_zipfile_serialization=False),
    }
    for name, write in files.items():
        # what it says of the best is then so; weights that tell nothing of their images' constants
        # are taken for ImageNet's
        differ = ("paths of others", "plain Lightning", "only weights")
        yield Case(name, write, may_differ=name in differ)


def choose(good: dict[str, Any], count: int, outside: Path, sign: Path) -> list[Case]:
    draws = random.Random(20261123)
    special = [*hostile(good, outside, sign)]
    texts = [*bytes_changed(good, draws)]
    trees = [*trees_changed(good)]
    draws.shuffle(trees)
    if count < 100:
        special, texts = special[::2], texts[: count // 8]
    return [*special, *texts, *trees][:count]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch of two."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "small.yaml").write_text(RECIPE)
    argv = ["fit", "--config", str(folder / "small.yaml"), "--log_dir", str(folder / "logs")]
    assert main([*argv, "--trainer.max_epochs", "1"]) == 0
    return folder


def use(command: str, folder: Path) -> int:
    """Go on with a checkpoint, test it, look into it, or take its weights."""
    last = str(folder / LAST)
    logs = ["--log_dir", str(folder / "logs")]
    if command == "fit":
        return main(["fit", "--ckpt_path", last, *logs, "--trainer.max_epochs", "2"])
    if command == "test":
        return main(["test", "--ckpt_path", last, *logs])
    if command == "inspect":
        return main(["inspect", last, "--num_images", "1", "--output", str(folder / "seen")])
    recipe = str(folder / "small.yaml")
    more = ["--run", "other", "--trainer.max_epochs", "1", "--model.init_args.weights", last]
    return main(["fit", "--config", recipe, *logs, *more])


def result(command: str, folder: Path) -> Any:
    """What a command made of a checkpoint."""
    if command == "inspect":
        return {path.name: path.read_bytes() for path in (folder / "seen").rglob("*.png")}
    if command == "test":
        rows = (folder / "logs/small/version_0/metrics.csv").read_text().splitlines()
        return rows[-1].split(",")[:2]
    path = folder / (LAST if command == "fit" else "logs/other/version_0/checkpoints/last.ckpt")
    content = torch.load(path, weights_only=True)
    return {key: content[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")}


def check(count: int, good: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    sign, outside = tmp_path / "executed", tmp_path / "precious" / "thesis.ckpt"
    (tmp_path / "canary_of_checkpoints.py").write_text(
        f"import pathlib\npathlib.Path({str(sign)!r}).touch()\n"
        "from cnn_lightning import LeNet\nclass Mine(LeNet):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outside.parent.mkdir()
    outside.write_text("three years of work")
    content = torch.load(good / LAST, weights_only=True)
    cases = choose(content, count, outside, sign)
    assert len(cases) == count
    right = {}
    for command in set(COMMANDS):
        shutil.copytree(good, tmp_path / command)
        assert use(command, tmp_path / command) == 0
        right[command] = result(command, tmp_path / command)
    outcomes: Counter[str] = Counter()
    complaints = []
    for number, case in enumerate(cases):
        command = COMMANDS[number % len(COMMANDS)]
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        case.write(folder / LAST)
        sign.unlink(missing_ok=True)
        capsys.readouterr()
        code = use(command, folder)
        errors = capsys.readouterr().err
        outcome, complaint = judge(code, errors)
        if (
            code == 0
            and not case.may_differ
            and differences(right[command], result(command, folder))
        ):
            complaint = "another result than that of the good one"
        if sign.exists():
            complaint += " CODE WAS EXECUTED"
        if outside.read_text() != "three years of work" or len([*outside.parent.iterdir()]) > 1:
            complaint += " WROTE ELSEWHERE"
        outcomes[f"{command} {outcome}"] += 1
        if complaint:
            complaints.append(f"{command}, {case.name}: {complaint}")
        shutil.rmtree(folder)
    with capsys.disabled():
        sys.stdout.write(f"\n{count} damaged checkpoints: {dict(sorted(outcomes.items()))}\n")
    assert not complaints, "\n".join(complaints)
    assert outcomes["fit ran"] > 0
    assert outcomes["fit refused"] > 0


def judge(code: int, errors: str) -> tuple[str, str]:
    """What became of it, and a complaint if that is wrong."""
    if "Traceback" in errors or code not in (0, 1, 2):
        return "failed", f"exit code {code}: {errors[-1500:]}"
    if code == 0:
        return "ran", ""
    told = f"\n{errors}"[f"\n{errors}".find("\nerror: ") + 1 :]  # warnings come before
    lines = told.splitlines()
    if not told.startswith("error: ") or len(lines) > 3 or max(map(len, lines)) > 1000:
        return "refused", f"not told in a few lines: {errors[:1500]}"
    if not told.replace("\n", "").isprintable():
        return "refused", f"not printable: {errors!r}"
    return "refused" if code == 2 else "failed", ""


def test_damaged_checkpoints_in_short(
    good: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(24, good, tmp_path, capsys, monkeypatch)


@pytest.mark.slow
def test_damaged_checkpoints(
    good: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(200, good, tmp_path, capsys, monkeypatch)


def test_canary_sings_when_code_is_run(tmp_path: Path) -> None:
    torch.save({"more": Evil(tmp_path / "executed")}, tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()
    # written two lines above; without this, the tests before could pass with a canary that is mute
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / "executed").exists()
