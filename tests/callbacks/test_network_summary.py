"""A run begins with the layers of its network, by the names that other commands take."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelSummary
from small import UNDRAWN
from torch import nn

from cnn_lightning.analysis.layers import named_layers
from cnn_lightning.callbacks import NetworkSummary
from cnn_lightning.classifiers import (
    VGG16,
    ImageClassifier,
    LeNet,
    ResNet,
    TorchvisionClassifier,
)
from cnn_lightning.cli import main

FIT = ["fit", "--data", "ShapesDataModule", "--data.num_images", "60", "--data.num_test", "20"]
FIT += ["--model", "LeNet", "--trainer.max_steps", "1", *UNDRAWN]


def summary(classifier: ImageClassifier, capsys: pytest.CaptureFixture[str]) -> list[str]:
    classifier.example_input_array = torch.zeros(2, 3, 32, 32)
    capsys.readouterr()
    NetworkSummary().on_fit_start(None, classifier)  # type: ignore[arg-type]  # unused
    return capsys.readouterr().out.splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    (found,) = (line.split()[1:] for line in lines if line.split()[0] == name)
    return found


def test_layers_of_lenet(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(LeNet(10), capsys)
    assert lines[0].split() == ["layer", "type", "output", "parameters"]
    assert cells(lines, "backbone.conv1") == ["Conv2d", "6×28×28", "456"]
    assert cells(lines, "backbone.pool2") == ["AvgPool2d", "16×5×5"]
    assert cells(lines, "head") == ["Linear", "10", "850"]
    assert lines[-1] == "62,006 parameters"
    assert not any("metrics" in line for line in lines)


def test_layers_of_a_resnet_stand_in_the_order_of_their_calls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [line.split()[0] for line in summary(ResNet(10), capsys)[2:6]]
    assert names == [f"backbone.{name}" for name in ("conv1", "bn1", "relu", "maxpool")]


@pytest.mark.parametrize(
    ("classifier", "shown", "hidden"),
    [
        (VGG16, "backbone.features.43", None),
        (ResNet, "backbone.layer4.1", "backbone.layer4.1.conv1"),
        (lambda classes: TorchvisionClassifier(classes, name="densenet121"), "head", None),
    ],
)
def test_blocks_are_opened_while_there_is_room(
    classifier: type[ImageClassifier],
    shown: str,
    hidden: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = classifier(10)
    lines = summary(model, capsys)
    names = [line.split()[0] for line in lines[1:-1]]
    assert 5 < len(names) <= 50
    assert shown in names
    assert hidden not in names
    assert set(names) <= {name for name, _ in model.network.named_modules()}
    assert set(names) & set(named_layers(model.network))


def test_what_is_trained_of_a_frozen_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(LeNet(10, freeze="backbone"), capsys)[-1] == (
        "62,006 parameters, 850 of them trained"
    )


def test_layer_that_gives_no_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    class Pair(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images, images

    class First(nn.Module):
        def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return pair[0].mean((2, 3))

    layers = nn.Sequential(nn.Conv2d(3, 4, 1), Pair(), First(), nn.Linear(4, 10))
    lines = summary(ImageClassifier(layers), capsys)
    assert cells(lines, "backbone.1") == ["Pair"]
    assert cells(lines, "backbone.2") == ["First", "4"]


@pytest.mark.parametrize("asked", [None, True, False])
def test_run_without_it(
    asked: bool | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [] if asked is None else [f"--trainer.enable_model_summary={str(asked).lower()}"]
    assert main([*FIT, "--log_dir", str(tmp_path), *more]) == 0
    assert ("parameters" in capsys.readouterr().out) == (asked is not False)


def test_mixed_precision_is_nothing_to_warn_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    assert main([*FIT, "--log_dir", str(tmp_path), "--trainer.precision=bf16-mixed"]) == 0
    assert not [one for one in recwarn if "model summary" in str(one.message)]


def test_the_users_own_takes_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    depths = []
    monkeypatch.setattr(
        ModelSummary, "on_fit_start", lambda self, *_: depths.append(self._max_depth)
    )
    more = ["--trainer.callbacks=ModelSummary", "--trainer.callbacks.max_depth=2"]
    assert main([*FIT, "--log_dir", str(tmp_path), *more]) == 0
    assert depths == [2]
    assert "parameters" not in capsys.readouterr().out
