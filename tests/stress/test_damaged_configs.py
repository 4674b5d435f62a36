"""Damaged and hostile configs: refused in a few lines, or run as exactly what they say."""

import copy
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from cnn_lightning.classifiers import ImageClassifier, optimization
from cnn_lightning.classifiers.optimization import ClassSpec
from cnn_lightning.cli import main
from cnn_lightning.settings import read_settings

GOOD: dict[str, Any] = {
    "seed_everything": 7,
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {
            "num_images": 60,
            "num_test": 20,
            "batch_size": 16,
            "eval_batch_size": 20,
            "val_fraction": 0.2,
            "augment": "flip",
        },
    },
    "model": {
        "class_path": "LeNet",
        "init_args": {"activation": "relu", "schedule_interval": "epoch", "image_size": 32},
    },
    "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.05, "momentum": 0.8}},
    "schedule": {"class_path": "StepLR", "init_args": {"step_size": 3, "gamma": 0.5}},
    "checkpoint": {"every_n_steps": 0, "every_n_minutes": 10},
    "feature_maps": {"every_n_epochs": 0},
    "activation_statistics": {"every_n_epochs": 0},
    "kernels": {"every_n_epochs": 0},
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 1,
        "precision": "32-true",
        "gradient_clip_val": 1.0,
        "accumulate_grad_batches": 1,
        "limit_val_batches": 1.0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}
# as outside of tests, where a warning is not an error
pytestmark = pytest.mark.filterwarnings("default")

CANARY = "canary_of_configs"
# what a value may become
VALUES: dict[str, Any] = {
    "null": None,
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "negative": -5,
    "zero": 0,
    "huge": 10**12,
    "beyond 64 bits": 10**30,
    "fraction": 0.3,
    "true": True,
    "empty text": "",
    "text": "abc",
    "list": [1, 2],
    "empty list": [],
    "map": {"a": 1},
    "empty map": {},
    "function": "os.system",
    "deep function": "torch.os.system",
    "module": f"{CANARY}.Mine",
    "spec": {"class_path": f"{CANARY}.Mine", "init_args": {}},
    "popen": {"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}},
    "escape": "\x1b[2J\x1b[31mred",
    "path": "../../etc/passwd",
    "device": "/dev/zero",
    "long": "x" * 5000,
}


class Case(NamedTuple):
    name: str
    content: bytes


def paths(tree: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from paths(value, (*at, key))


def changed(path: tuple[str, ...], change: Callable[[dict[str, Any], str], None]) -> bytes:
    tree = copy.deepcopy(GOOD)
    branch = tree
    for key in path[:-1]:
        branch = branch[key]
    change(branch, path[-1])
    return yaml.safe_dump(tree, sort_keys=False).encode()


def values_changed() -> Iterator[Case]:
    for path in paths(GOOD):
        for name, value in VALUES.items():

            def put(branch: dict[str, Any], key: str, value: Any = value) -> None:
                branch[key] = value

            yield Case(f"{'.'.join(path)} becomes {name}", changed(path, put))


def keys_changed() -> Iterator[Case]:
    def misspell(branch: dict[str, Any], key: str) -> None:
        branch[key[:-1]] = branch.pop(key)

    def leave_out(branch: dict[str, Any], key: str) -> None:
        del branch[key]

    def nest(branch: dict[str, Any], key: str) -> None:
        branch[key] = {key: branch[key]}

    def number(branch: dict[str, Any], key: str) -> None:
        branch[3] = branch.pop(key)  # type: ignore[index]

    for path in paths(GOOD):
        for change in (misspell, leave_out, nest, number):
            yield Case(f"{'.'.join(path)}: {change.__name__}", changed(path, change))


def texts_changed(draws: random.Random) -> Iterator[Case]:
    good = yaml.safe_dump(GOOD, sort_keys=False).encode()
    lines = good.splitlines(keepends=True)
    for number in range(60):
        damaged = bytearray(good)
        place = draws.randrange(len(damaged))
        kind = number % 6
        if kind == 0:
            damaged[place] ^= 1 << draws.randrange(8)
        elif kind == 1:
            del damaged[place:]
        elif kind == 2:
            del damaged[place : place + draws.randrange(1, 30)]
        elif kind == 3:
            damaged[place:place] = draws.choice([b"\0", b"\xff", b"\t", b"{", b"'", b": ", b"*a "])
        elif kind == 4:
            line = draws.randrange(len(lines))
            damaged = bytearray(b"".join([*lines[: line + 1], lines[line], *lines[line + 1 :]]))
        else:
            one, two = sorted(draws.sample(range(len(lines)), 2))
            swapped = [*lines]
            swapped[one], swapped[two] = lines[two], lines[one]
            damaged = bytearray(b"".join(swapped))
        yield Case(
            f"text {number}: {['flip', 'cut', 'drop', 'insert', 'double', 'swap'][kind]}",
            bytes(damaged),
        )


def hostile() -> Iterator[Case]:
    good = yaml.safe_dump(GOOD, sort_keys=False).encode()
    bomb = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10)
    )
    call = f"!!python/object/apply:{CANARY}.build []"
    calling = "lightning.pytorch.callbacks.LambdaCallback"
    for name, content in {
        "empty": b"",
        "spaces": b"  \n\n",
        "only a comment": b"# nothing\n",
        "a list": b"- 1\n- 2\n",
        "a text": b"hello",
        "a number": b"3",
        "UTF-16": good.decode().encode("utf-16"),
        "mark of byte order": b"\xef\xbb\xbf" + good,
        "Windows line ends": good.replace(b"\n", b"\r\n"),
    }.items():
        yield Case(name, content)
    for name, more in {
        "two documents": b"---\n" + good,
        "two groups of one name": b"trainer: {max_epochs: 2}\n",
        "bomb of aliases": bomb,
        "list within itself": b"a: &a [*a]\n",
        "deep lists": b"a: " + b"[" * 5000 + b"]" * 5000,
        "deep maps": b"a: " + b"{b: " * 5000 + b"1" + b"}" * 5000,
        "large": b"# " + b"x" * 2_000_000,
        "Latin-1": "# caf\xe9".encode("latin-1"),
        "key with an escape": b'"\\e[2Jx": 1\n',
        "key of two lines": b'"x\\nerror: fine": 1\n',
        "key null": b"null: 1\n",
        "key that is a list": b"? [a, b]\n: 1\n",
        "allows its module": f"allow_modules: {CANARY}\n".encode(),
        "its own config": b"config: /etc/passwd\n",
        "unknown group": b"trainers: {max_epochs: 3}\n",
        "run elsewhere": b"run: ../../elsewhere\n",
        "run is a number": b"run: 2026\n",
        "logs are a list": b"log_dir: [a]\n",
        "checkpoint is a map": b"ckpt_path: {a: 1}\n",
        "checkpoint is no file": b"ckpt_path: /nowhere.ckpt\n",
    }.items():
        yield Case(name, good + more)
    for name, place, other in (
        ("tag that calls", "model:", f"model: {call}\nmodel2:"),
        ("tag for a value", "0.05", call),
        ("tag of a set", "0.05", "!!set {1}"),
        ("tag of bytes", "0.05", "!!binary aGk="),
        ("a date", "0.05", "2026-01-31"),
        ("a number with e", "0.05", "5e-2"),
        ("base 60", "max_epochs: 1", "max_epochs: 1:30"),
        ("two keys in one group", "max_epochs: 1", "max_epochs: 1\n  max_epochs: 2"),
        ("octal", "num_images: 60", "num_images: 0100"),
        ("hexadecimal", "num_images: 60", "num_images: 0x40"),
        ("underscores", "num_images: 60", "num_images: 6_0"),
        ("linked classes", "activation: relu", "activation: relu\n    num_classes: 3"),
        ("linked optimizer", "activation: relu", "activation: relu\n    optimizer: Adam"),
        ("group is a file", "trainer:", "trainer: /etc/passwd\ntrainer2:"),
        ("merge", "\ntrainer:\n", "\nx: &x {max_epochs: 1}\ntrainer:\n  <<: *x\n"),
        ("plugin", "\ntrainer:\n", f"\ntrainer:\n  plugins: [{CANARY}.Mine]\n"),
        ("strategy", "\ntrainer:\n", f"\ntrainer:\n  strategy: {CANARY}.Mine\n"),
        (
            "callback that calls",
            "\ntrainer:\n",
            f"\ntrainer:\n  callbacks: {{class_path: {calling}, init_args: "
            f"{{on_fit_start: {CANARY}.build}}}}\n",
        ),
        (
            "logger that is a process",
            "\ntrainer:\n",
            "\ntrainer:\n  logger: {class_path: subprocess.Popen, init_args: {args: ['true']}}\n",
        ),
    ):
        assert place in good.decode()
        yield Case(name, good.decode().replace(place, other, 1).encode())


def choose(count: int) -> list[Case]:
    """The hostile ones, and as many of all others as fit, the same ones every time."""
    draws = random.Random(20261123)
    # values and keys at every place, in a fixed random order; texts are few, and all different
    trees = [*values_changed(), *keys_changed()]
    draws.shuffle(trees)
    texts = [*texts_changed(draws)]
    special = [*hostile()]
    if count < 100:  # a short form of each kind
        draws.shuffle(special)
        special, texts = special[: count // 2], texts[: count // 8]
    different = {case.content: case for case in [*special, *texts, *trees]}
    return [*different.values()][:count]


class Told(NamedTuple):
    code: int
    errors: str
    trained: dict[str, Any] | None


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears when the stranger's module is imported or called."""
    sign = tmp_path / "executed"
    (tmp_path / f"{CANARY}.py").write_text(
        f"import pathlib\npathlib.Path({str(sign)!r}).touch()\n"
        "from cnn_lightning import LeNet\n"
        "class Mine(LeNet):\n    pass\n"
        f"def build(*args):\n    pathlib.Path({str(sign)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield sign
    sys.modules.pop(CANARY, None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the first step of each run really used; every run ends after that step."""
    seen: list[dict[str, Any]] = []
    original = ImageClassifier.training_step

    def step(classifier: ImageClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        trainer: Any = classifier.trainer
        optimizer = trainer.optimizers[0]
        group = optimizer.param_groups[0]
        seen.append(
            {
                "seed_everything": os.environ.get("PL_GLOBAL_SEED"),
                "optimizer.class_path": type(optimizer).__name__,
                "optimizer.init_args.lr": group.get("initial_lr"),
                "optimizer.init_args.momentum": group.get("momentum"),
                "schedule.class_path": type(trainer.lr_scheduler_configs[0].scheduler).__name__,
                "model.class_path": type(classifier).__name__,
                "data.class_path": type(trainer.datamodule).__name__,
                **{
                    f"data.init_args.{key}": value
                    for key, value in trainer.datamodule.hparams.items()
                },
                **{f"model.init_args.{key}": value for key, value in classifier.hparams.items()},
                "trainer.max_epochs": trainer.max_epochs,
                "trainer.gradient_clip_val": trainer.gradient_clip_val,
                "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
                "trainer.precision": trainer.precision,
            }
        )
        trainer.should_stop = True
        return original(classifier, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", step)
    monkeypatch.setattr(ImageClassifier, "log_dict", lambda *args, **kwargs: None)
    return seen


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flatten(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def same(said: Any, found: Any, key: str) -> bool:
    if key.endswith("class_path"):
        return str(said).rpartition(".")[2] == str(found).rpartition(".")[2]
    if isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        return [*said] == [*found]
    if isinstance(said, (int, float)) and isinstance(found, float):
        return float(said) == found
    return bool(said == found) or str(said) == str(found)


def run(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    config = folder / "recipe.yaml"
    config.write_bytes(case.content)
    capsys.readouterr()
    code = main(["fit", "--config", str(config), "--log_dir", str(folder / "logs")])
    return code, capsys.readouterr().err


def judge(
    case: Case, folder: Path, seen: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """What became of a config: `refused` or `ran`; a complaint if that is wrong, or empty."""
    folder.mkdir()
    seen.clear()
    code, errors = run(case, folder, capsys)
    if "Traceback" in errors or code not in (0, 1, 2):
        return "failed", f"exit code {code}: {errors[-1500:]}"
    if code == 1:  # a failure of the very run that was asked for
        return "failed", "" if "\nerror: " in f"\n{errors}" else errors[-1500:]
    if code == 2:
        errors = f"\n{errors}"[f"\n{errors}".find("\nerror: ") + 1 :]  # warnings come before
        lines = errors.splitlines()
        if not errors.startswith("error: ") or len(lines) > 3 or max(map(len, lines)) > 1000:
            return "refused", f"not told in a few lines: {errors[:1500]}"
        if not errors.replace("\n", "").isprintable():
            return "refused", f"not printable: {errors!r}"
        if seen:
            return "refused", "and yet it trained"
        return "refused", ""
    said = flatten(read_settings(folder / "recipe.yaml"))
    kept = flatten(read_settings(folder / "logs/recipe/version_0/config.yaml"))
    wrong = [
        f"{key} is {where[key]!r}, not {value!r}"
        for key, value in said.items()
        for where in (kept, *seen[:1])
        if value is not None and key in where and not same(value, where[key], key)
    ]
    lost = [key for key in said if key not in kept and not any(k.startswith(key) for k in kept)]
    wrong += [f"{key} is not in config.yaml" for key in lost if said[key] not in ({}, None)]
    if not seen and said.get("trainer.max_epochs") != 0:
        wrong.append("exit code 0 without a step")
    return "ran", "; ".join(wrong)


def check(cases: list[Case], tmp_path: Path, canary: Path, seen: Any, capsys: Any) -> None:
    outcomes: Counter[str] = Counter()
    complaints = []
    for number, case in enumerate(cases):
        outcome, complaint = judge(case, tmp_path / str(number), seen, capsys)
        outcomes[outcome] += 1
        if canary.exists():
            canary.unlink()
            complaint += " CODE WAS EXECUTED"
        if complaint:
            complaints.append(f"{case.name}: {complaint}")
    with capsys.disabled():
        sys.stdout.write(f"\n{len(cases)} damaged configs: {dict(outcomes)}\n")
    assert not complaints, "\n".join(complaints)
    assert len(cases) in (40, 200)
    assert outcomes["ran"] > 0
    assert outcomes["refused"] > 0


def test_damaged_configs_in_short(
    tmp_path: Path, canary: Path, trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(choose(40), tmp_path, canary, trained, capsys)


@pytest.mark.slow
def test_damaged_configs(
    tmp_path: Path, canary: Path, trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    check(choose(200), tmp_path, canary, trained, capsys)


def test_good_config_runs_and_the_canary_sings(
    tmp_path: Path, canary: Path, trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Case("good", yaml.safe_dump(GOOD, sort_keys=False).encode())
    assert judge(good, tmp_path / "good", trained, capsys) == ("ran", "")
    config = tmp_path / "stranger.yaml"
    config.write_text(yaml.safe_dump({**GOOD, "model": f"{CANARY}.Mine"}))
    assert not canary.exists()
    more = ["--log_dir", str(tmp_path / "logs"), "--allow_modules", CANARY]
    assert main(["fit", "--config", str(config), *more]) == 0
    assert canary.exists()


def test_run_of_something_else_is_noticed(
    tmp_path: Path,
    trained: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = optimization.build_optimizer

    def build_other(spec: ClassSpec, module: torch.nn.Module) -> torch.optim.Optimizer:
        return build({**spec, "init_args": {**spec["init_args"], "lr": 0.04}}, module)

    monkeypatch.setattr(optimization, "build_optimizer", build_other)
    good = Case("good", yaml.safe_dump(GOOD, sort_keys=False).encode())
    outcome, complaint = judge(good, tmp_path / "good", trained, capsys)
    assert outcome == "ran"
    assert complaint == "optimizer.init_args.lr is 0.04, not 0.05"
