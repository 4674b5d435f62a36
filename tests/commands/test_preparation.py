"""Images are prepared as a checkpoint says, whatever pictures are at hand."""

from pathlib import Path

import pytest
import torch
from make_checkpoint import save_checkpoint
from make_data import make_folder
from PIL import Image
from small import UNDRAWN

from cnn_lightning.classifiers import Airbench, ImageClassifier
from cnn_lightning.cli import main
from cnn_lightning.commands.loading import load_data
from cnn_lightning.data import ImageFolderDataModule

WIDTHS = (4, 4, 4)
FLAGS = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", size=(32, 32))


@pytest.fixture
def checkpoint(photos: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, Airbench(2, widths=WIDTHS), ImageFolderDataModule(root=str(photos)))
    return path


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, ...]]:
    """C, H, W of all images that reach a network."""
    seen: set[tuple[int, ...]] = set()
    before = ImageClassifier.forward

    def forward(classifier: ImageClassifier, images: torch.Tensor) -> torch.Tensor:
        seen.add(tuple(images.shape[1:]))
        return before(classifier, images)

    monkeypatch.setattr(ImageClassifier, "forward", forward)
    return seen


def run(command: str, checkpoint: Path, *more: str | Path) -> int:
    log_dir = str(checkpoint.parent / "logs")
    argv = [command, "--ckpt_path", str(checkpoint), "--log_dir", log_dir, *map(str, more)]
    return main([*argv, *FLAGS])


@pytest.mark.parametrize(
    ("command", "size"), [("validate", (64, 64)), ("test", (40, 48)), ("predict", (64, 64))]
)
def test_pictures_of_another_size_are_brought_to_that_of_the_training(
    command: str,
    size: tuple[int, int],
    checkpoint: Path,
    shapes: set[tuple[int, ...]],
    tmp_path: Path,
) -> None:
    other = make_folder(tmp_path / "other", size=size)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "data: {class_path: ImageFolderDataModule, "
        f"init_args: {{root: {other}, image_size: null, mean: null}}}}"
    )
    assert run(command, checkpoint, "--config", recipe) == 0
    assert shapes == {(3, 32, 32)}


def test_a_size_that_is_asked_for_wins_and_is_said(
    checkpoint: Path, shapes: set[tuple[int, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("validate", checkpoint, "--data.image_size=48") == 0
    assert shapes == {(3, 48, 48)}
    said = "images are 3×48×48, those of the checkpoint are 3×32×32"
    assert capsys.readouterr().out.count(said) == 1


def test_data_from_a_checkpoint_alone_has_the_size_of_the_training(
    checkpoint: Path, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", size=(64, 64))
    data = load_data(checkpoint, root=str(other))
    assert data.image_shape == (3, 32, 32)
    assert data.load("test")[0].shape[1:] == (3, 32, 32)
    assert load_data(checkpoint, root=str(other), image_size=48).image_shape == (3, 48, 48)


def test_another_preparation_than_the_checkpoints_is_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = {
        "data.mean": [0.485, 0.456, 0.406],
        "data.std": [0.229, 0.224, 0.225],
        "model.image_size": 32,
    }
    others = {"data.mean": [0.9, 0.9, 0.9], "data.std": [0.9, 0.9, 0.9], "model.image_size": 48}
    for flag, value in others.items():
        assert run("test", checkpoint, f"--{flag}={value}") == 2
        told = f"{flag} is {value}, the images of the checkpoint were prepared with {stored[flag]}"
        assert f"error: {told}\n" in capsys.readouterr().err
    # the control: what they were prepared with
    assert run("validate", checkpoint, *(f"--{flag}={one}" for flag, one in stored.items())) == 0


def test_a_resumed_run_keeps_size_and_preparation_or_says_the_new_size(
    photos: Path,
    tmp_path: Path,
    shapes: set[tuple[int, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["fit", "--data=ImageFolderDataModule", "--data.root", str(photos), "--run=a"]
    argv += ["--log_dir", str(tmp_path / "logs"), "--model=Airbench", f"--model.widths={[*WIDTHS]}"]
    argv += [*FLAGS, *UNDRAWN]
    last = tmp_path / "logs/a/version_0/checkpoints/last.ckpt"

    def stored_shape() -> list[int]:
        shape: list[int] = torch.load(last, weights_only=True)["cnn_lightning"]["image_shape"]
        return shape

    argv += ["--trainer.enable_model_summary=false"]
    assert main([*argv, "--trainer.max_epochs=1"]) == 0
    Image.new("RGB", (30, 20)).save(photos / "train/cat/!first.png")
    resumed = [*argv, "--ckpt_path=last"]
    assert main([*resumed, "--trainer.max_epochs=2"]) == 0
    assert shapes == {(3, 32, 32)}
    assert stored_shape() == [3, 32, 32]
    assert "image_size" not in capsys.readouterr().out
    assert main([*resumed, "--trainer.max_epochs=3", "--data.mean=[0.9, 0.9, 0.9]"]) == 2
    shapes.clear()
    assert main([*resumed, "--trainer.max_epochs=3", "--data.image_size=48"]) == 0
    assert shapes == {(3, 48, 48)}
    assert stored_shape() == [3, 48, 48]
    assert load_data(last).image_shape == (3, 48, 48)
