"""A seed and `--trainer.deterministic true` give the same bits twice, for every classifier."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from compare import assert_same_checkpoint, differences
from small import UNDRAWN

from cnn_lightning import classifiers
from cnn_lightning.cli import main

LAST = Path("checkpoints/last.ckpt")
# a row per class, and one more for each network that is another
ROWS: dict[str, dict[str, str]] = {
    "LeNet": {"class_path": "LeNet", "dropout": "0.5"},
    "VGG16": {"class_path": "VGG16"},
    "Airbench": {"class_path": "Airbench", "widths": "[8,16,16]"},
    "ResNet": {"class_path": "ResNet"},
    "Inception": {"class_path": "Inception", "version": "v3", "image_size": "75"},
    "GoogLeNet": {"class_path": "Inception", "version": "googlenet", "stem": "small"},
    "TorchvisionClassifier": {"class_path": "TorchvisionClassifier", "name": "mobilenet_v3_small"},
}
FAST = ("LeNet", "TorchvisionClassifier")


@pytest.fixture(autouse=True)
def flags_as_before() -> Iterator[None]:
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def fit(name: str, folder: Path, *more: str) -> Path:
    """Two epochs of five steps, with everything random on."""
    settings = dict(ROWS[name])
    argv = ["fit", "--model", settings.pop("class_path"), "--log_dir", str(folder)]
    argv += [f"--model.{key}={value}" for key, value in settings.items()]
    argv += ["--data=ShapesDataModule", "--data.num_images=50", "--data.num_test=10"]
    argv += ["--data.batch_size=9", "--data.augment=crop_flip", *UNDRAWN]
    argv += ["--trainer.max_epochs=2", "--trainer.deterministic=true"]
    assert main([*argv, *more]) == 0
    assert torch.are_deterministic_algorithms_enabled()
    # without it, cuBLAS is not deterministic on a GPU
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    torch.use_deterministic_algorithms(False)
    return folder / "run/version_0"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow], id=name)
        for name in ROWS
    ],
)
def test_two_runs_of_a_seed_give_the_same_bits(name: str, tmp_path: Path) -> None:
    runs = []
    for place in ("first", "second"):
        torch.rand(len(runs) + 1)  # what was drawn before must not matter
        runs.append(fit(name, tmp_path / place))
    assert_same_checkpoint(runs[0] / LAST, runs[1] / LAST)


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    runs = [fit("LeNet", tmp_path / seed, f"--seed_everything={seed}") for seed in ("1", "2")]
    weights = [torch.load(run / LAST, weights_only=True)["state_dict"] for run in runs]
    assert differences(weights[0], weights[1])


def test_an_operation_that_cannot_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(self: classifiers.ImageClassifier, *args: object) -> None:
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.ones(2))

    monkeypatch.setattr(classifiers.ImageClassifier, "on_train_batch_end", draw)
    with pytest.raises(AssertionError, match="assert 1 == 0"):
        fit("LeNet", tmp_path)
    told = capsys.readouterr().err.splitlines()[-2:]
    assert told[0] == "error: put_ does not have a deterministic implementation on this device"
    assert told[1].startswith("  use --trainer.deterministic warn, or false; nothing to go on from")


def test_every_classifier_has_a_row() -> None:
    found = {
        name
        for name in classifiers.__all__
        if isinstance(kind := getattr(classifiers, name), type)
        and issubclass(kind, classifiers.ImageClassifier)
        and kind is not classifiers.ImageClassifier
    }
    assert found == {row["class_path"] for row in ROWS.values()}
