"""What is refused before torch is imported is what the parser refuses, and nothing else."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse._parameter_resolvers import get_signature_parameters
from lightning.pytorch import Trainer

from cnn_lightning import callbacks, classifiers, data, optim
from cnn_lightning.cli import main
from cnn_lightning.commands.data_settings import build_data
from cnn_lightning.commands.early import _Check, check_early
from cnn_lightning.commands.options import CALLBACK_GROUPS, CLASS_GROUPS
from cnn_lightning.commands.training import silence
from cnn_lightning.errors import UserError
from cnn_lightning.signatures import class_parameters, find_class

CONFIGS = Path(__file__).parents[2] / "configs"
GOOD = {
    "seed_everything": 7,
    "log_dir": "elsewhere",
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {"num_images": 60, "batch_size": 16, "val_fraction": 0.2, "augment": "flip"},
    },
    "model": {"class_path": "LeNet", "init_args": {"activation": "relu", "image_size": 32}},
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "nesterov": False}},
    "schedule": {"class_path": "StepLR", "init_args": {"step_size": 3, "gamma": 0.5}},
    "checkpoint": {"every_n_minutes": 10},
    "kernels": {"every_n_epochs": 0},
    "trainer": {"max_epochs": 1, "precision": "32-true", "gradient_clip_val": 1.0, "logger": True},
}
VALUES = [
    *(None, True, 0, -5, 10**30, 0.3, "", "abc", "3", "1e-3", [], [1, 2], {}, {"a": 1}),
    *("os.system", "ResNet", "a: b", "&a [*a]", "{a: 1}"),
]
VALID_FLAGS = [
    ["--trainer.max_epochs=3", "--trainer.precision", "bf16-mixed", "--trainer.devices", "auto"],
    ["--trainer.devices", "[0,1]", "--trainer.limit_train_batches", "0.5", "--seed_everything=3"],
    ["--trainer.deterministic", "warn", "--trainer.callbacks", "RichModelSummary"],
    ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss"],
    ["--trainer.logger", "false", "--trainer.max_time", "00:00:10:00"],
    ["--model", "ResNet", "--model.depth", "34", "--model.init_args.stem", "imagenet"],
    ["--model.class_path", "cnn_lightning.LeNet", "--model.pooling", "max"],
    ["--model", "cnn_lightning.classifiers.lenet.LeNet", "--model.dropout", "0.5"],
    ["--model", '{"class_path": "VGG16", "init_args": {"stem": "small"}}'],
    ["--model.init_args", '{"activation": "gelu"}', "--model.weights", "null"],
    ["--data", "MNISTDataModule", "--data.sample", "true", "--data.root", "/nowhere"],
    ["--data.init_args.batch_size", "12", "--data.num_images=50"],
    ["--optimizer", "Adam", "--optimizer.lr", "1e-3", "--optimizer.betas", "[0.9, 0.99]"],
    ["--optimizer.init_args.lr=0.1", "--optimizer.weight_decay", "0"],
    ["--schedule", "torch.optim.lr_scheduler.ExponentialLR", "--schedule.gamma", "0.9"],
    ["--schedule", "WarmupCosine", "--run", "12", "--log_dir", "there"],
    ["--feature_maps.layers", "[first]", "--bad_numbers.stop", "false"],
    ["--checkpoint", '{"every_n_steps": 10}', "--feature_cache.enabled=no"],
    ["--weights_only", "true", "--print_config"],
    [
        "--tf32",
        "false",
        "--keep_memory=false",
        "--cpu_bf16",
        "true",
        "--compile",
        "aot_eager",
        "--data.on_device=true",
        "--",
    ],
    ["--config", str(CONFIGS / "with/bf16.yaml"), "--trainer", '{"max_epochs": 2}'],
]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    return path


def is_refused(check: str, argv: list[str]) -> bool:
    """Whether the early check, or the parser with all that it checks, refuses a command line."""
    try:
        if check == "early":
            check_early("fit", argv)
        else:
            silence()
            build_data("fit", argv)
    except UserError:
        return True
    except SystemExit:  # after --print_config
        return False
    return False


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_passes_with_every_overlay(config: Path) -> None:
    check_early("fit", ["--config", str(config)])
    overlays = [f"--config={path}" for path in sorted((CONFIGS / "with").glob("*.yaml"))]
    check_early("fit", ["--config", str(config), *overlays])


@pytest.mark.parametrize("flags", VALID_FLAGS, ids=" ".join)
def test_valid_flags_pass(flags: list[str], good: Path) -> None:
    check_early("fit", ["--config", str(good), *flags])


@pytest.mark.filterwarnings("default")
def test_valid_flags_are_valid(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merged = [flag for flags in VALID_FLAGS[:2] for flag in flags] + VALID_FLAGS[-1]
    assert not is_refused("parser", ["--config", str(good), *merged])
    assert not is_refused("parser", ["--config", str(good), *VALID_FLAGS[5]])
    assert not is_refused("parser", ["--config", str(good), *VALID_FLAGS[12], *VALID_FLAGS[16]])


MISTAKES = {
    "key": (["--trainer.max_epoch", "3"], "--trainer.max_epoch", "trainer.max_epochs"),
    "group": (["--traner.max_epochs", "3"], "--traner.max_epochs", "trainer"),
    "argument": (["--model.activaton", "relu"], "--model.activaton", "model.activation"),
    "of the data": (["--data.init_args.rot", "x"], "--data.init_args.rot", "data.root"),
    "of the optimizer": (["--optimizer.init_args.lrr", "1"], "lrr", "optimizer.lr"),
    "of a callback": (["--kernels.every_n_epoch", "1"], "every_n_epoch", "kernels.every_n_epochs"),
    "class": (["--model", "LeNett"], "no class LeNett", "LeNet"),
    "schedule": (["--schedule", "StepRL"], "no class StepRL", "StepLR"),
    "whole number": (["--trainer.max_epochs", "abc"], "trainer.max_epochs: expected int", "abc"),
    "choice": (["--model.activation=rellu"], "activation: expected one of 'tanh', 'relu'", "rellu"),
    "alias of a type": (["--data.augment", "turn"], "data.augment", "crop_flip"),
    "fraction": (["--schedule.gamma", "much"], "schedule.gamma: expected float", "much"),
    "precision": (["--trainer.precision", "8"], "trainer.precision", "bf16-mixed"),
    "seed": (["--seed_everything", "true"], "seed_everything: expected int", "true"),
    "linked": (["--model.num_classes", "3"], "num_classes", "data"),
    "checkpoint": (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt", "--ckpt_path"),
    "config": (["--config", "nowhere.yaml"], "nowhere.yaml", "--config"),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_with_what_was_meant(name: str, good: Path) -> None:
    flags, what, remedy = MISTAKES[name]
    with pytest.raises(UserError) as refused:
        check_early("fit", ["--config", str(good), *flags])
    assert what in refused.value.what
    assert remedy in str(refused.value)


@pytest.mark.filterwarnings("default")
def test_the_parser_refuses_these_mistakes_too(good: Path) -> None:
    for flags, *_ in MISTAKES.values():
        argv = ["--config", str(good), *flags]
        if "--ckpt_path" in flags:  # is found before the parser is asked
            continue
        if "nowhere.yaml" in flags or "--model.num_classes" in flags:
            assert main(["fit", *argv]) == 2
        else:
            assert is_refused("parser", argv), flags


def damaged(draws: random.Random) -> list[dict[str, object]]:
    """The good settings, one value or key changed in each."""
    cases = []
    paths = [[key] for key in GOOD]
    for key, group in GOOD.items():
        if isinstance(group, dict):
            paths += [[key, name] for name in group]
            paths += [[key, "init_args", name] for name in group.get("init_args", {})]
    for path in paths:
        for value in [*VALUES, "renamed", "removed"]:
            tree = yaml.safe_load(yaml.safe_dump(GOOD))
            branch = tree
            for key in path[:-1]:
                branch = branch[key]
            if value == "renamed":
                branch[path[-1][:-1]] = branch.pop(path[-1])
            elif value == "removed":
                del branch[path[-1]]
            else:
                branch[path[-1]] = value
            cases.append(tree)
    draws.shuffle(cases)
    return cases


def check_property(folder: Path, cases: int, most: int) -> None:
    config = folder / "damaged.yaml"
    counts = {True: 0, False: 0}
    for tree in damaged(random.Random(5))[:cases]:
        config.write_text(yaml.safe_dump(tree))
        refused = is_refused("early", ["--config", str(config)])
        counts[refused] += 1
        if refused and counts[True] <= most:
            assert is_refused("parser", ["--config", str(config)]), tree
    assert min(counts.values()) > cases // 5


@pytest.mark.filterwarnings("default")
def test_whatever_is_refused_early_the_parser_refuses_in_short(tmp_path: Path) -> None:
    check_property(tmp_path, cases=60, most=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_whatever_is_refused_early_the_parser_refuses(tmp_path: Path) -> None:
    check_property(tmp_path, cases=500, most=500)


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(one) for one in kind.__subclasses__()))


KINDS: dict[str, type] = {
    "model": classifiers.ImageClassifier,
    "data": data.ImageDataModule,
    "optimizer": torch.optim.Optimizer,
    "schedule": torch.optim.lr_scheduler.LRScheduler,
}


@pytest.mark.parametrize("group", CLASS_GROUPS)
def test_arguments_read_from_source_are_those_of_the_parser(group: str) -> None:
    checked = 0
    for kind in subclasses(KINDS[group]):
        if kind.__name__ == "ReduceLROnPlateau":
            continue  # there are two of this name, and neither can be had
        found = [find_class(module, kind.__name__) for module in CLASS_GROUPS[group].modules]
        place = next((one for one in found if one is not None), None)
        known = place and class_parameters(place)
        if known is not None:
            names = {parameter.name for parameter in get_signature_parameters(kind, "__init__")}
            assert names <= set(known), kind
            checked += 1
    assert checked >= 3
    public = {"model": classifiers, "data": data, "schedule": optim}.get(group, torch.optim)
    for name in getattr(public, "__all__", dir(public)):
        if isinstance(kind := getattr(public, name), type) and issubclass(kind, KINDS[group]):
            assert any(find_class(m, name) for m in CLASS_GROUPS[group].modules), name


def test_options_read_from_source_are_those_of_the_parser(
    good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kind in {
        "trainer": Trainer,
        **{key: getattr(callbacks, name) for key, name in CALLBACK_GROUPS.items()},
    }.items():
        known = _Check("fit").groups[name]
        assert known is not None
        assert {p.name for p in get_signature_parameters(kind, "__init__")} == set(known)
    assert main(["fit", "--config", str(good), "--print_config"]) == 0
    options = yaml.safe_load(capsys.readouterr().out)
    assert {"model", "trainer", "checkpoint"} <= set(options) <= _Check("fit").known


RUN = """
import sys
from cnn_lightning.cli import main
code = main(sys.argv[1:])
sys.exit(3 if "torch" in sys.modules else code)
"""


@pytest.mark.parametrize("name", ["key", "class", "whole number", "config", "of the optimizer"])
def test_mistakes_are_told_without_torch(name: str, good: Path) -> None:
    argv = ["fit", "--config", str(good), *MISTAKES[name][0]]
    told = subprocess.run([sys.executable, "-c", RUN, *argv], capture_output=True, text=True)
    assert told.returncode == 2, told.stderr
    assert told.stderr.startswith("error: ")
    assert MISTAKES[name][1] in told.stderr


def test_help_is_told_without_torch() -> None:
    told = subprocess.run([sys.executable, "-c", RUN, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert "fit" in told.stdout


def test_a_class_of_the_users_own_is_left_to_the_parser(good: Path) -> None:
    check_early("fit", ["--config", str(good), "--model", "mine.MyNet", "--model.anything", "3"])


def test_arguments_of_a_class_that_is_replaced_are_left_to_the_parser(
    good: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("model: {class_path: VGG16, init_args: {only_of_vgg: 3}}")
    argv = ["--config", str(other), "--config", str(good)]
    check_early("fit", argv)
    with pytest.raises(UserError, match="only_of_vgg"):
        check_early("fit", ["--config", str(good), "--config", str(other)])
