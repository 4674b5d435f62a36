"""`predict` on a user's own files, with a checkpoint and nothing else."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from make_checkpoint import save_checkpoint
from make_data import make_cifar10, make_folder, make_mnist, make_weights
from PIL import Image, ImageOps
from small import UNDRAWN

from cnn_lightning.classifiers import ImageClassifier, LeNet
from cnn_lightning.cli import main
from cnn_lightning.commands.loading import load_classifier
from cnn_lightning.data import (
    CIFAR10DataModule,
    ImageDataModule,
    ImageFolderDataModule,
    MNISTDataModule,
    ShapesDataModule,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def predict(checkpoint: Path, *more: str | Path, code: int = 0) -> list[dict[str, str]]:
    """Run the command; the rows of predictions.csv."""
    argv = ["predict", "--ckpt_path", str(checkpoint), *map(str, more)]
    assert main([*argv, "--log_dir", str(checkpoint.parent / "logs")]) == code
    tables = list(checkpoint.parent.glob("logs/*/version_*/predictions.csv"))
    return rows_of(max(tables, key=lambda path: path.stat().st_mtime_ns)) if tables else []


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Five pictures at three depths, of several formats and sizes."""
    root = tmp_path / "mine"
    draws = np.random.default_rng(0)
    for number, name in enumerate(["a.jpg", "b.png", "sub/c.webp", "sub/deep/d.bmp", "sub/e.GIF"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (30 + 9 * number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return root


def mnist(root: Path) -> tuple[ImageDataModule, ImageClassifier]:
    make_mnist(root)
    return MNISTDataModule(root=str(root)), LeNet(10, 1)


def cifar10(root: Path) -> tuple[ImageDataModule, ImageClassifier]:
    CIFAR10DataModule.files = make_cifar10(root)
    return CIFAR10DataModule(root=str(root), eval_batch_size=3), LeNet(10)


def folder(root: Path) -> tuple[ImageDataModule, ImageClassifier]:
    make_folder(root, ("yes", "no", "1"))  # names that YAML takes for other things
    return ImageFolderDataModule(root=str(root), image_size=40), LeNet(3, image_size=30)


def shapes(root: Path) -> tuple[ImageDataModule, ImageClassifier]:
    return ShapesDataModule(num_images=100, num_test=20), LeNet(10)


@pytest.mark.parametrize("kind", [mnist, cifar10, folder, shapes])
def test_files_are_prepared_as_in_validation_whatever_the_training_data_was(
    kind: Callable[[Path], tuple[ImageDataModule, ImageClassifier]],
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CIFAR10DataModule, "files", CIFAR10DataModule.files)
    (tmp_path / "data").mkdir()
    data, classifier = kind(tmp_path / "data")
    checkpoint = tmp_path / "a.ckpt"
    save_checkpoint(checkpoint, classifier, data)
    shutil.rmtree(tmp_path / "data")  # all that is needed is in the checkpoint
    rows = predict(checkpoint, f"--data.init_args.paths=[{mine}]", "--top_k", "20")
    files = sorted(str(path) for path in mine.rglob("*.*"))
    assert [row["image"] for row in rows] == files
    names = list(classifier.class_names or ())
    _, expected = load_classifier(checkpoint).predict_images(files)
    channels, size, _ = data.image_shape
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["true"] == ""
        assert row["predicted"] == row["top1"] == names[int(probabilities.argmax())]
        found = {
            row[f"top{i}"]: float(row[f"top{i}_probability"]) for i in range(1, len(names) + 1)
        }
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert [found[name] for name in names] == pytest.approx(probabilities.tolist(), abs=2e-6)
        # by hand: Pillow, numpy, and the network
        with Image.open(row["image"]) as image:
            grey_or_colour = image.convert("RGB").convert("L" if channels == 1 else "RGB")
        fitted = ImageOps.fit(grey_or_colour, (size, size), method=Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(fitted)).reshape(size, size, channels).permute(2, 0, 1)
        constants = (torch.tensor(data.mean), torch.tensor(data.std))
        mean, std = (values.reshape(-1, 1, 1) for values in constants)
        prepared = ((pixels / 255 - mean) / std)[None]
        if classifier.image_size:
            prepared = torch.nn.functional.interpolate(
                prepared, (30, 30), mode="bilinear", antialias=True
            )
        with torch.no_grad():
            by_hand = load_classifier(checkpoint)(prepared).softmax(1)[0]
        assert [found[name] for name in names] == pytest.approx(by_hand.tolist(), abs=1e-5)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "a.ckpt", LeNet(10))
    return tmp_path / "a.ckpt"


def test_what_cannot_be_read_is_listed_and_the_rest_done(
    mine: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        (mine / f"sub/damaged_{number:02}.jpg").write_bytes(b"no image")
    (mine / "notes.txt").touch()
    rows = predict(checkpoint, "--data.paths", f"[{mine}, {mine}/gone.png]")
    assert len(rows) == 5
    run = checkpoint.parent / "logs/a/version_0"
    unread = rows_of(run / "predictions_unread.csv")
    assert len(unread) == 14
    assert {Path(row["path"]).name for row in unread} >= {"notes.txt", "gone.png", "damaged_11.jpg"}
    assert all(row["path"] in row["reason"] for row in unread)
    lines = [line for line in capsys.readouterr().out.splitlines() if "not read" in line]
    assert len(lines) == 12
    assert lines[-2].startswith("not read: 4 more, all in ")
    assert lines[-1] == "5 images predicted, 14 files not read"
    assert (run / "figures/predictions.png").read_bytes().startswith(b"\x89PNG")


def test_only_if_nothing_can_be_read_it_is_a_failure(
    mine: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "bad.jpg").touch()
    assert not predict(checkpoint, "--data.paths", mine / "bad.jpg", code=2)
    told = capsys.readouterr()
    assert "not read: " in told.out
    assert "none of 1 files could be read" in told.err
    assert "Traceback" not in told.err
    assert len(predict(checkpoint, "--data.paths", f"[{mine}/bad.jpg, {mine}/a.jpg]")) == 1
    assert len(predict(checkpoint, "--data.paths", mine / "a.jpg")) == 1
    (newest,) = (checkpoint.parent / "logs/a").glob("version_2")
    assert not (newest / "predictions_unread.csv").exists()


def test_files_can_be_named_one_by_one(mine: Path, checkpoint: Path) -> None:
    rows = predict(checkpoint, f"--data.paths+={mine}/b.png", f"--data.paths+={mine}/a.jpg")
    assert [Path(row["image"]).name for row in rows] == ["b.png", "a.jpg"]
    assert list(rows[0])[-1] == "top3_probability"


def test_files_can_be_named_in_a_config(mine: Path, checkpoint: Path, tmp_path: Path) -> None:
    config = tmp_path / "files.yaml"
    settings = {"paths": [str(mine)], "eval_batch_size": 2}
    config.write_text(yaml.safe_dump({"data": {"init_args": settings}}))
    assert len(predict(checkpoint, "--config", config)) == 5


def test_another_data_module_beside_files_is_refused(
    mine: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "other.yaml"
    config.write_text("data: ShapesDataModule\n")
    predict(checkpoint, "--config", config, "--data.paths", mine, code=2)
    assert "names files, and a config names ShapesDataModule" in capsys.readouterr().err
    predict(checkpoint, "--data.paths", mine, "--data.root", mine, code=2)
    assert "root" in capsys.readouterr().err
    predict(checkpoint, "--data.paths", mine, "--top_k", "0", code=2)
    assert "top_k is 0" in capsys.readouterr().err


@pytest.fixture
def run(checkpoint: Path) -> Path:
    """A run whose newest version has no checkpoint yet."""
    folder = checkpoint.parent / "logs/small/version_0/checkpoints"
    folder.mkdir(parents=True)
    checkpoint.rename(folder / "best.ckpt")
    save_checkpoint(folder / "last.ckpt", LeNet(10, activation="relu"))
    (folder.parents[1] / "version_1").mkdir()
    return folder.parents[1]


@pytest.mark.parametrize("form", ["{run}", "{run}/version_0", "small"])
def test_a_run_stands_for_its_best_checkpoint(
    form: str, run: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", "--ckpt_path", form.format(run=run), "--log_dir", str(run.parent)]
    assert main([*argv, "--data.paths", str(mine)]) == 0
    assert f"taking {run}/version_0/checkpoints/best.ckpt" in capsys.readouterr().out
    assert len(rows_of(run / "version_0/predictions.csv")) == 5


def test_a_run_without_a_best_checkpoint_is_refused(
    run: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", "--data.paths", str(mine), "--log_dir", str(run.parent), "--ckpt_path"]
    assert main([*argv, str(run / "version_1")]) == 2
    assert "version_1 has no best.ckpt" in capsys.readouterr().err
    assert main([*argv, "smal"]) == 2
    assert "there is no checkpoint smal" in capsys.readouterr().err


@pytest.mark.slow  # tests/data/test_unlabelled.py has it without processes
def test_two_processes_share_the_files(mine: Path, checkpoint: Path) -> None:
    alone = predict(checkpoint, "--data.paths", mine)
    (mine / "bad.jpg").touch()
    (mine / "sub/worse.png").touch()
    command = [sys.executable, "-m", "cnn_lightning", "predict", "--ckpt_path", str(checkpoint)]
    command += ["--data.paths", str(mine), "--log_dir", str(checkpoint.parent / "two")]
    command += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy=ddp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = checkpoint.parent / "two/a/version_0"
    assert rows_of(folder / "predictions.csv") == alone
    assert len(rows_of(folder / "predictions_unread.csv")) == 2
    assert "5 images predicted, 2 files not read" in done.stdout


def test_from_own_pictures_to_predictions_with_the_recipe_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CNN_LIGHTNING_CACHE", raising=False)
    make_weights("resnet18", repeated=True)  # stands for the file that would be downloaded
    photos = make_folder(
        tmp_path / "photos", ("ant", "bee"), per_class=7, size=(50, 70), test=False
    )
    for place in ("ant", "bee"):  # nested folders, and fewer of one kind
        pictures = sorted((photos / "train" / place).iterdir())
        (photos / "train" / place / "more").mkdir()
        pictures[0].rename(photos / "train" / place / "more" / pictures[0].name)
    for path in sorted((photos / "train/bee").glob("*.*g"))[4:]:
        path.unlink()
    argv = ["fit", "--config", str(CONFIGS / "folder_resnet18_head.yaml")]
    argv += ["--data.init_args.root", str(photos), "--log_dir", str(tmp_path / "logs")]
    argv += ["--data.init_args.batch_size", "4", "--trainer.max_epochs", "2", *UNDRAWN]
    assert main([*argv, "--model.class_weights", "balanced"]) == 0
    new = make_folder(
        tmp_path / "new", ("bee", "ant"), per_class=2, size=(50, 70), test=False, seed=7
    )
    run = tmp_path / "logs/folder_resnet18_head"
    predict_argv = ["predict", "--ckpt_path", str(run), "--data.init_args.paths", f"[{new}]"]
    assert main(predict_argv) == 0
    rows = rows_of(run / "version_0/predictions.csv")
    assert len(rows) == 4
    assert {row["predicted"] for row in rows} <= {"ant", "bee"}
    assert main(["test", "--ckpt_path", str(run)]) == 0
