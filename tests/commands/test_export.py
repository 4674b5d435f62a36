"""`export` writes a file that is checked on real images, or says why it does not."""

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from make_checkpoint import save_checkpoint
from make_data import make_folder

from cnn_lightning import exporting
from cnn_lightning.classifiers import LeNet
from cnn_lightning.cli import main
from cnn_lightning.data import ImageFolderDataModule, ShapesDataModule

pytestmark = pytest.mark.usefixtures("onnx_operators")
README = Path(__file__).parents[2] / "README.md"
# run before the example: what a user without this package has not
BLOCKED = """
import sys
for name in ("torch", "cnn_lightning", "lightning", "torchvision"):
    sys.modules[name] = None
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A LeNet on shapes that answers differently by image, in a run folder."""
    path = tmp_path / "logs/small/version_0/checkpoints/best.ckpt"
    torch.manual_seed(0)
    classifier = LeNet(10)
    with torch.no_grad():
        classifier.network.head.weight.mul_(20)  # type: ignore[operator]
    save_checkpoint(path, classifier)
    return path


def export(*argv: str | Path) -> int:
    return main(["export", *map(str, argv)])


def refuse(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    capsys.readouterr()
    assert export(*argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_file_is_checked_on_validation_images(
    ending: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"out/model.{ending}"
    argv = ["best", "--run", "small", "--log_dir", tmp_path / "logs", "--format", ending]
    assert export(*argv, "--output", path) == 0
    said = capsys.readouterr()
    assert said.err == ""
    takes, checked, written = said.out.splitlines()
    assert "takes raw uint8 images N×3×32×32" in takes
    assert checked.startswith("checked on 10 validation images of ShapesDataModule, in batches of")
    assert "batches of 1, 2, 3, 10: probabilities differ by" in checked
    assert "tolerance 0.0001" in checked
    assert written == str(path)
    assert list(path.parent.iterdir()) == [path]
    if ending == "onnx":  # which other programs read by itself
        facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        assert json.loads(facts["class_names"]) == list(ShapesDataModule.class_names)


def test_views_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "a.ckpt"
    save_checkpoint(checkpoint, LeNet(10, test_augment="flip"))
    assert export(checkpoint, "--output", tmp_path / "model.pt2") == 0
    takes = capsys.readouterr().out.splitlines()[0]
    assert takes.endswith("logits N×10, means over the views of test_augment: flip")


def test_images_and_preparation_can_be_chosen(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, path = make_folder(tmp_path / "photos"), tmp_path / "model.pt2"
    argv = [checkpoint, "--output", path, "--images", photos / "train/cat/cat_000.png"]
    assert export(*argv, "--preprocess", "false") == 0
    takes, checked, _ = capsys.readouterr().out.splitlines()
    assert "prepared float32" in takes
    assert checked.startswith("checked on 1 image file (cat_000.png), in batches of 1, 2, 3")
    assert torch.export.load(path).module()(torch.zeros(4, 3, 32, 32))[0].shape == (4, 10)


def test_data_that_is_gone_is_not_made_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, checkpoint = tmp_path / "old", tmp_path / "new", tmp_path / "a.ckpt"
    make_folder(old)
    save_checkpoint(checkpoint, LeNet(2), ImageFolderDataModule(root=str(old), image_size=32))
    old.rename(new)
    argv = [checkpoint, "--output", tmp_path / "model.pt2"]
    message = refuse(capsys, *argv)
    assert "no images to check the file on" in message
    assert "--images" in message
    assert not (tmp_path / "model.pt2").exists()
    assert export(*argv, "--data.root", new) == 0


def test_file_that_differs_ends_with_exit_code_1(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "PROBABILITY_TOLERANCE", -1.0)  # which nothing is below
    assert export(checkpoint, "--output", tmp_path / "out/model.pt2") == 1
    message = capsys.readouterr().err
    assert message.startswith("error: the exported network differs on a batch of 1")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_is_named_with_the_remedy(
    package: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = refuse(capsys, checkpoint, "--output", tmp_path / "model.onnx")
    assert f"ONNX needs the package {package}" in message
    assert "pip install 'cnn-lightning[export]'" in message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "model.pb"], "does not end with .onnx or .pt2"),
        (["--output", "model.pt2", "--format", "onnx"], "does not end with .onnx"),
        (["--output", "m.pt2", "--format", "tflite"], "tflite"),
        (["--output", "m.pt2", "--preprocess", "maybe"], "neither true nor false"),
        (["--output", "m.pt2", "--images", "nowhere.png"], "there is no image nowhere.png"),
        ([], "--output"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_refused(
    argv: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refuse(capsys, checkpoint, *argv)


def test_place_that_cannot_be_written_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refuse(capsys, checkpoint, "--output", tmp_path / "file/m.pt2")
    (tmp_path / "folder.pt2").mkdir()
    assert "is a folder" in refuse(capsys, checkpoint, "--output", tmp_path / "folder.pt2")


def example() -> str:
    """The README's program for users without this package."""
    _, _, after = README.read_text().partition("\n## Export\n")
    program = after.partition("```python\n")[2].partition("```")[0]
    assert "onnxruntime" in program
    assert len(program.splitlines()) < 20
    return program


@pytest.mark.parametrize("channels", [3, 1])
def test_example_of_the_readme_runs_without_this_package(channels: int, tmp_path: Path) -> None:
    data = ShapesDataModule(num_images=100, num_test=20)
    photos = make_folder(tmp_path / "photos", per_class=2)
    (photos / "train/cat/cat_001.jpg").rename(tmp_path / "photo.jpg")
    torch.manual_seed(0)
    classifier = LeNet(10, channels)
    with torch.no_grad():
        classifier.network.head.weight.mul_(20)  # type: ignore[operator]
    if channels == 1:
        data.image_shape, data.mean, data.std = (1, 32, 32), (0.5,), (0.25,)
    save_checkpoint(tmp_path / "a.ckpt", classifier, data)
    argv = [tmp_path / "a.ckpt", "--output", tmp_path / "model.onnx"]
    assert export(*argv, "--images", tmp_path / "photo.jpg") == 0
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED + example()],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    name, probability = done.stdout.split()
    (expected,), probabilities = classifier.eval().predict_images([tmp_path / "photo.jpg"])
    assert name == expected
    assert 0.15 < probabilities.max() < 0.99  # neither a guess nor certain
    assert abs(float(probability) - probabilities.max().item()) < 1e-4


def test_what_is_blocked_cannot_be_imported() -> None:
    for name in ("torch", "cnn_lightning"):
        done = subprocess.run(
            [sys.executable, "-c", f"{BLOCKED}import {name}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "ModuleNotFoundError" in done.stderr
