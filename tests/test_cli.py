"""Mistakes end with exit code 2 and a few lines that name the remedy, never with a traceback."""

import contextlib
import csv
from pathlib import Path

import pytest
import torch
from make_data import make_folder
from small import UNDRAWN

from cnn_lightning.cli import COMMANDS, main
from cnn_lightning.commands import show
from cnn_lightning.errors import RunError, UserError
from cnn_lightning.runs import RunFolder

RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 100, num_test: 40, batch_size: 32}
model: LeNet
trainer: {max_epochs: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def trained(recipe: Path, tmp_path: Path) -> Path:
    argv = ["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs"), *UNDRAWN]
    assert main(argv) == 0
    return tmp_path / "logs/small/version_0/checkpoints/best.ckpt"


def refuse(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """Run a command that must be refused; its message."""
    capsys.readouterr()
    assert main([str(arg) for arg in argv]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.startswith("error: ")
    assert 1 <= len(message.splitlines()) <= 5, message
    assert all(len(line) < 500 for line in message.splitlines()), message
    return message


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ")
    assert command in text


@pytest.mark.parametrize(
    "flags", [["--data.help", "FolderData"], ["--model.help=Nope"], ["--config", "none", "--help"]]
)
def test_help_that_cannot_be_had(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, "fit", *flags)


@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize("flag", ["--model.help", "--data.help", "--trainer.callbacks.help"])
def test_help_of_a_class_of_ones_own(
    command: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helped.py").write_text(
        "from lightning import Callback\n"
        "from cnn_lightning import LeNet, ShapesDataModule\n"
        "class Net(LeNet): ...\n"
        "class Pictures(ShapesDataModule): ...\n"
        "class Watch(Callback):\n    def __init__(self, word: str): ...\n"
    )
    name, option = {"model": ("Net", "freeze"), "data": ("Pictures", "num_test")}.get(
        flag.removeprefix("--").removesuffix(".help"), ("Watch", "word")
    )
    with contextlib.chdir(tmp_path):
        argv = [command, "--allow_modules", "helped", f"{flag}=helped.{name}"]
        assert main(argv) == 0
    assert option in capsys.readouterr().out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "fit" in refuse(capsys, "trian")


@pytest.mark.parametrize(
    "flags", [["--data.batch_size=8", "--data=ShapesDataModule"], ["--data=ImageDataModule"]]
)
def test_settings_of_a_class_that_is_not_named_yet(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--model=LeNet", *flags)
    assert "data: ImageDataModule is the base of others" in message
    assert "--data CIFAR10DataModule --data." in message


def test_wrong_class_name(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refuse(capsys, "fit", "--config", recipe, "--model", "LeNett")
    assert "there is no class LeNett" in message
    assert "perhaps LeNet" in message


def test_wrong_choice_is_told_the_right_ones(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--config", recipe, "--model.activation", "rellu")
    assert "activation: expected one of 'tanh', 'relu'" in message
    assert "rellu" in message


def test_choices_of_several_kinds_are_one_list(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--config", recipe, "--trainer.precision", "17")
    assert "expected one of 64, 32, 16, 'transformer-engine', " in message
    assert "'64', '32', '16', 'bf16'\n" in message
    assert "[" not in message
    assert "]" not in message


def test_a_rate_that_is_no_number_is_taken_for_no_class(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--config", recipe, "--optimizer.init_args.lr", "fast")
    assert "SGD: lr: expected float" in message


def test_misspelt_key_in_a_config(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE.replace("max_epochs", "max_epoch"))
    assert "max_epoch" in refuse(capsys, "fit", "--config", recipe)


def test_the_beginning_of_an_option_is_not_the_option(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--config", recipe, "--trainer.max_epoch", "3")
    assert "--trainer.max_epoch" in message


def test_misspelt_argument_of_the_model(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(
        RECIPE.replace("model: LeNet", "model: {class_path: LeNet, init_args: {activaton: relu}}")
    )
    assert "activaton" in refuse(capsys, "fit", "--config", recipe)


def test_misspelt_argument_of_the_optimizer(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--config", recipe, "--optimizer.init_args.lrr", "0.1")
    assert "lrr" in message


@pytest.mark.parametrize("flag", ["--model.init_args.num_classes=3", "--model.in_channels=1"])
def test_value_for_a_linked_key(
    flag: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "comes from the data" in refuse(capsys, "fit", "--config", recipe, flag)


def test_value_for_a_linked_key_in_a_config(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(
        RECIPE.replace("model: LeNet", "model: {class_path: LeNet, init_args: {num_classes: 3}}")
    )
    assert "num_classes" in refuse(capsys, "fit", "--config", recipe)


@pytest.mark.parametrize("key", ["limit_train_batches", "max_epochs", "max_steps"])
def test_training_of_nothing(key: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refuse(capsys, "fit", "--config", recipe, f"--trainer.{key}=0")
    assert f"trainer.{key} is 0" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_no_gpu(name: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refuse(capsys, "fit", "--config", recipe, f"--trainer.accelerator={name}")
    assert "without --trainer.accelerator" in message


@pytest.mark.parametrize("command", ["test", "inspect"])
def test_misspelt_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shapes/version_0").mkdir(parents=True)
    which = ("best",) if command == "inspect" else ("--ckpt_path", "best")
    message = refuse(capsys, command, *which, "--run", "shape", "--log_dir", tmp_path)
    assert "perhaps shapes;" in message


def test_half_precision_on_a_cpu(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refuse(
        capsys,
        "fit",
        "--config",
        recipe,
        "--trainer.precision=16-mixed",
        "--trainer.accelerator=cpu",
    )
    assert "bf16-mixed" in message


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_weights_of_another_type_than_images(
    precision: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, "fit", "--config", recipe, f"--trainer.precision={precision}")
    assert "bf16-mixed" in message


def test_evaluations_take_the_recipe_that_was_trained(
    trained: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(
        recipe.read_text()
        + "\noptimizer: {class_path: SGD, init_args: {lr: 0.5}}\nschedule: WarmupLinear\n"
        + "feature_maps: {every_n_epochs: 0}\ncompile: true\n"
    )
    argv = ["--config", str(more), "--ckpt_path", str(trained)]
    for command in ("validate", "test", "predict"):
        assert main([command, *argv]) == 0
        message = refuse(capsys, command, *argv, "--optimizer=SGD")
        assert f"{command} trains nothing" in message


@pytest.mark.parametrize("command", ["validate", "test"])
def test_what_was_measured_is_told(
    command: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [command, "--ckpt_path", str(trained)]
    assert main(argv) == 0
    said = capsys.readouterr().out
    stage = command.removesuffix("idate")
    with RunFolder(trained.parents[1]).metrics.open(newline="") as stream:
        last = [row for row in csv.DictReader(stream) if row[f"{stage}/accuracy"]][-1]
    told = dict(line.split() for line in said.splitlines() if line.startswith(f"{stage}/"))
    assert told == {key: f"{float(value):.4f}" for key, value in last.items() if key in told}
    assert {f"{stage}/accuracy", f"{stage}/loss"} <= set(told)
    assert "DataLoader" not in said
    assert main([*argv, "--verbose", "false"]) == 0
    assert f"{stage}/" not in capsys.readouterr().out


def test_missing_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in refuse(capsys, "fit", "--config", "nowhere.yaml")


def test_config_that_is_not_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.yaml").write_text("a: [1,\nb: }")
    assert "odd.yaml" in refuse(capsys, "fit", "--config", tmp_path / "odd.yaml")


def test_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, "fit", "--data", "ShapesDataModule")


def test_missing_data_root(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(
        capsys,
        "fit",
        "--config",
        recipe,
        "--data",
        "ImageFolderDataModule",
        "--data.root",
        tmp_path / "nowhere",
    )
    assert "nowhere" in message


def test_missing_downloads(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text("data: CIFAR10DataModule\nmodel: LeNet\n")
    message = refuse(
        capsys, "fit", "--config", recipe, "--data.root", tmp_path, "--log_dir", tmp_path / "logs"
    )
    assert str(tmp_path) in message


@pytest.mark.parametrize("weights", ["IMAGENET9000", "nowhere/weights.pt", "DEFAULT"])
def test_weights_that_cannot_be_had(
    weights: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(
        capsys,
        "fit",
        "--config",
        recipe,
        "--model",
        "ResNet",
        "--model.stem",
        "imagenet",
        "--model.weights",
        weights,
        "--log_dir",
        tmp_path / "logs",
    )
    assert weights in message
    if weights == "DEFAULT":
        assert "torch_home" in message  # the file it looked for and where to put it


def test_checkpoints_are_never_read_as_more_than_values(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "weights_only" in refuse(capsys, "fit", "--config", recipe, "--weights_only=false")


def test_early_stopping_on_a_misspelt_metric(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/los")
    log_dir = ("--log_dir", tmp_path / "logs")
    message = refuse(capsys, "fit", "--config", recipe, *UNDRAWN, *watched, *log_dir)
    assert "`val/los`" in message
    assert "`val/loss`" in message


@pytest.mark.parametrize("key", ["optimizer", "schedule"])
def test_null_is_no_optimizer_and_no_schedule(
    key: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(f"{RECIPE}{key}: null\n")
    assert f"{key} is null" in refuse(capsys, "fit", "--config", recipe)


def test_checkpoint_of_another_network(
    trained: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(RECIPE.replace("LeNet", "ResNet"))
    message = refuse(capsys, "fit", "--config", recipe, "--ckpt_path", trained)
    assert "LeNet" in message
    assert "ResNet" in message


def test_checkpoint_of_another_shape(
    trained: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "photos", classes=("cat", "dog"))
    message = refuse(
        capsys,
        "test",
        "--ckpt_path",
        trained,
        "--data",
        "ImageFolderDataModule",
        "--data.root",
        tmp_path / "photos",
    )
    assert "data" in message


@pytest.mark.parametrize("which", ["last", "best"])
def test_nothing_to_resume(
    which: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(
        capsys, "fit", "--config", recipe, "--ckpt_path", which, "--log_dir", tmp_path / "logs"
    )
    assert f"{which}.ckpt" in message


def test_auto_starts_and_then_goes_on(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs"), "--ckpt_path"]
    assert main([*argv, "auto"]) == 0
    assert "starting anew" in capsys.readouterr().out
    assert main([*argv, "auto", "--trainer.max_epochs", "2"]) == 0
    assert "going on from" in capsys.readouterr().out
    assert not (tmp_path / "logs/small/version_1").exists()


def test_damaged_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained.write_bytes(trained.read_bytes()[:5000])
    assert "best.ckpt" in refuse(capsys, "test", "--ckpt_path", trained)


def test_checkpoint_that_would_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": Attack()}, tmp_path / "bad.ckpt")
    assert "bad.ckpt" in refuse(capsys, "test", "--ckpt_path", tmp_path / "bad.ckpt")
    assert not (tmp_path / "touched").exists()


def test_empty_class_folder(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "photos")
    (tmp_path / "photos/train/empty").mkdir()
    message = refuse(
        capsys,
        "fit",
        "--config",
        recipe,
        "--data",
        "ImageFolderDataModule",
        "--data.root",
        tmp_path / "photos",
        "--log_dir",
        tmp_path / "logs",
    )
    assert "empty" in message


def test_unreadable_image_is_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "photos")
    (tmp_path / "photos/train/cat/zzz.jpg").write_bytes(b"not an image")
    message = refuse(
        capsys,
        "fit",
        "--config",
        recipe,
        "--data",
        "ImageFolderDataModule",
        "--data.root",
        tmp_path / "photos",
        "--log_dir",
        tmp_path / "logs",
    )
    assert "zzz.jpg" in message


def test_command_line_wins_over_the_checkpoint(
    trained: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--trainer.max_epochs=2", "--optimizer.init_args.lr=0.001"]
    argv = ["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs")]
    assert main([*argv, "--ckpt_path", "last", *more]) == 0
    assert "changed: optimizer.init_args.lr is 0.001, was 0.05" in capsys.readouterr().out
    last = torch.load(trained.with_name("last.ckpt"), weights_only=True)
    assert last["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 0.001
    assert all(
        group["initial_lr"] == 0.001 for group in last["optimizer_states"][0]["param_groups"]
    )


def test_test_and_predict_need_only_the_checkpoint(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", "--ckpt_path", str(trained)]) == 0
    assert main(["predict", "--ckpt_path", str(trained)]) == 0
    run = trained.parent.parent
    written = capsys.readouterr().out
    assert str(run / "predictions.csv") in written
    assert (run / "figures/predictions.png").read_bytes().startswith(b"\x89PNG")
    lines = (run / "predictions.csv").read_text().splitlines()
    assert len(lines) == 41
    table = (run / "metrics.csv").read_text().splitlines()
    assert "test/accuracy" in table[0]
    assert "test/accuracy/circle" in table[0]


def test_failure_in_a_run_is_told_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: str, argv: list[str]) -> int:
        raise RunError("the loss is nan at step 12", "go on with a lower learning rate")

    monkeypatch.setattr(show, "main", fail)
    assert main(["show"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: the loss is nan at step 12", "  go on with a lower learning rate"]


def test_errors_cross_process_boundaries_whole() -> None:
    import copy

    error = copy.copy(UserError("what", "remedy"))
    assert (error.what, error.remedy) == ("what", "remedy")


def test_without_validation_no_checkpoint_is_the_best(recipe: Path, tmp_path: Path) -> None:
    argv = ["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs")]
    assert main([*argv, "--trainer.limit_val_batches=0"]) == 0
    assert [path.name for path in (tmp_path / "logs").rglob("*.ckpt")] == ["last.ckpt"]


@pytest.mark.parametrize(
    "flag", ["--trainer.fast_dev_run=true", "--trainer.enable_checkpointing=false"]
)
def test_trial_runs_write_no_checkpoint(flag: str, recipe: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs"), flag]) == 0
    assert not list((tmp_path / "logs").rglob("*.ckpt"))
