"""A config or a checkpoint names nothing that runs code unless the user allows its module."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from make_checkpoint import save_checkpoint

from cnn_lightning import LeNet
from cnn_lightning.classifiers.base import CHECKPOINT_KEY
from cnn_lightning.cli import main
from cnn_lightning.commands.loading import load_classifier
from cnn_lightning.errors import UserError
from cnn_lightning.imports import allow_modules

RECIPE = """
data: {class_path: ShapesDataModule, init_args: {num_images: 60, num_test: 20, batch_size: 32}}
model: LeNet
trainer: {max_steps: 1, enable_progress_bar: false}
"""
NUMBERS = itertools.count()


class Stranger:
    """A module whose import, and whose functions' calls, leave a file behind."""

    def __init__(self, folder: Path) -> None:
        self.name = f"stranger_{next(NUMBERS)}"
        self.imported, self.called = folder / "imported", folder / "called"
        (folder / f"{self.name}.py").write_text(
            f"""
import pathlib
pathlib.Path({str(self.imported)!r}).touch()
from cnn_lightning import LeNet, ImageDataModule
class Mine(LeNet):
    pass
def build(*args, **kwargs) -> LeNet:
    pathlib.Path({str(self.called)!r}).touch()
def read(*args, **kwargs) -> ImageDataModule:
    pathlib.Path({str(self.called)!r}).touch()
"""
        )


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    monkeypatch.syspath_prepend(tmp_path)
    stranger = Stranger(tmp_path)
    yield stranger
    sys.modules.pop(stranger.name, None)


def fit(tmp_path: Path, *more: str) -> int:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    return main(["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs"), *more])


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 3
    return message


@pytest.mark.parametrize(
    "path",
    [
        *("os.system", "torch.os.system", "torch.optim.os.system", "torch.hub.load"),
        *("subprocess.Popen", "builtins.eval", "torch.nn.Linear", "torch.nn.init.zeros_"),
        *("cnn_lightning.commands.loading.load_classifier", "lightning.pytorch.Trainer"),
    ],
)
@pytest.mark.parametrize("key", ["model", "trainer.logger"])
def test_what_is_no_class_of_the_wanted_kind_is_refused(
    key: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path, f"--{key}", path) == 2
    assert key.rpartition(".")[0] in refusal(capsys)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("called", ["os.system", "torch.hub.load", "torch.nn.init.zeros_"])
def test_function_for_a_callback_to_call_is_refused(
    called: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = "lightning.pytorch.callbacks.LambdaCallback"
    spec = f"[{{class_path: {callback}, init_args: {{on_fit_start: {called}}}}}]"
    assert fit(tmp_path, "--trainer.callbacks", spec) == 2
    assert called in refusal(capsys)


@pytest.mark.parametrize("key", ["model", "data", "schedule", "trainer.callbacks"])
def test_module_is_not_even_imported(
    key: str, stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path, f"--{key}", f"{stranger.name}.Mine") == 2
    assert f"--allow_modules {stranger.name}" in refusal(capsys)
    assert not stranger.imported.exists()


def test_module_that_the_user_allows(stranger: Stranger, tmp_path: Path) -> None:
    assert fit(tmp_path, "--model", f"{stranger.name}.Mine", "--allow_modules", stranger.name) == 0
    assert stranger.imported.exists()  # so the canary sings when it can
    run = tmp_path / "logs/small/version_0"
    known = yaml.safe_load((run / "config.yaml").read_text())
    assert known["model"]["class_path"] == f"{stranger.name}.Mine"
    stranger.imported.unlink()
    del sys.modules[stranger.name]
    for argv in (
        ["fit", "--run", "small", "--ckpt_path", "last", "--log_dir", str(tmp_path / "logs")],
        ["test", "--ckpt_path", str(run / "checkpoints/last.ckpt")],
    ):
        assert main(argv) == 2
        assert not stranger.imported.exists()
    assert main([*argv, f"--allow_modules={stranger.name}"]) == 0
    assert stranger.imported.exists()


def test_function_of_an_allowed_module_is_no_model(
    stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{stranger.name}.build"
    assert fit(tmp_path, "--model", name, "--allow_modules", stranger.name) == 2
    assert "a function is no class" in refusal(capsys)
    assert not stranger.called.exists()


@pytest.mark.parametrize("value", ["jsonargparse", "a b", "", "../evil"])
def test_modules_that_cannot_be_allowed(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path, f"--allow_modules={value}") == 2
    assert "--allow_modules" in refusal(capsys)


def test_config_cannot_allow_itself(
    stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(f"allow_modules: {stranger.name}\nmodel: {stranger.name}.Mine\n")
    assert fit(tmp_path, "--config", str(more)) == 2
    refusal(capsys)
    assert not stranger.imported.exists()


def test_checkpoint_of_a_stranger(stranger: Stranger, tmp_path: Path) -> None:
    path = tmp_path / "stranger.ckpt"
    save_checkpoint(path, LeNet(num_classes=10))
    content = torch.load(path, weights_only=True)
    content[CHECKPOINT_KEY]["classifier"] = f"{stranger.name}.Mine"
    torch.save(content, path)
    with pytest.raises(UserError, match=f"--allow_modules {stranger.name}"):
        load_classifier(path)
    assert not stranger.imported.exists()
    with allow_modules([stranger.name]):
        assert type(load_classifier(path)).__name__ == "Mine"
    assert stranger.imported.exists()


def test_escape_sequences_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(tmp_path, "--config", "no\x1b[2J\nerror: fine\udcff.yaml") == 2
    message = capsys.readouterr().err
    assert "no\\x1b[2J\\nerror: fine\\udcff.yaml" in message
