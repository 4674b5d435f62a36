"""`inspect` writes what it says, of the images and classes that it says."""

from pathlib import Path

import pytest
import torch
from make_checkpoint import save_checkpoint
from make_data import make_folder

from cnn_lightning.analysis.attribution import grad_cam, occlusion
from cnn_lightning.classifiers import LeNet
from cnn_lightning.cli import main
from cnn_lightning.commands.inspect import explain
from cnn_lightning.commands.loading import load_classifier, load_data
from cnn_lightning.commands.subjects import Subjects, choose_validation
from cnn_lightning.data import ImageCSVDataModule, ImageFolderDataModule, ShapesDataModule

LAYERS = ("backbone.conv1", "backbone.conv2")
FILES = {
    "overlays.png",
    "layers.png",
    *(f"{kind}/{layer}.png" for kind in ("feature_maps", "kernels") for layer in LAYERS),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained LeNet on shapes, in a run folder."""
    path = tmp_path / "logs/small/version_0/checkpoints/best.ckpt"
    torch.manual_seed(0)
    save_checkpoint(path, LeNet(10))
    return path


def run(*argv: str | Path) -> int:
    return main(["inspect", *(str(arg) for arg in argv)])


def refuse(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    capsys.readouterr()
    assert run(*argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_checkpoint_alone_is_enough(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = checkpoint.read_bytes()
    assert run(checkpoint) == 0
    folder = checkpoint.parent.parent / "figures/inspect"
    assert written(folder) == FILES
    for name in FILES:
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 1_000_000
    assert set(capsys.readouterr().out.splitlines()) == {str(folder / name) for name in FILES}
    assert checkpoint.read_bytes() == before


def test_run_by_name_with_chosen_layers(checkpoint: Path, tmp_path: Path) -> None:
    argv = ["best", "--run", "small", "--log_dir", tmp_path / "logs", "--layers", "first"]
    assert run(*argv, "--num_images", "5", "--output", tmp_path / "out") == 0
    assert written(tmp_path / "out") == {
        "overlays.png",
        "overlays_2.png",  # of the fifth image
        "layers.png",
        "feature_maps/backbone.conv1.png",
        "kernels/backbone.conv1.png",
    }


def test_files_and_folders_with_their_classes(checkpoint: Path, tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos")
    images = ["--images", photos / "train/cat", photos / "train/dog/dog_003.jpg"]
    few = [checkpoint, *images, "--num_images", "2", "--layers", "first"]
    assert run(*few, "--output", tmp_path / "unknown") == 0
    assert run(*few, "--output", tmp_path / "known", "--labels", "star", "bar", "bar") == 0
    assert written(tmp_path / "unknown") == written(tmp_path / "known")
    # a true class stands in the picture only if it was told
    pictures = [(tmp_path / name / "overlays.png").read_bytes() for name in ("unknown", "known")]
    assert pictures[0] != pictures[1]


def test_data_that_has_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    make_folder(old)
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(2), ImageFolderDataModule(root=str(old), image_size=32))
    old.rename(new)
    argv = [path, "--layers", "first", "--num_images", "1", "--output", tmp_path / "out"]
    assert "old" in refuse(capsys, *argv)
    assert run(*argv, "--data.root", new) == 0
    assert run(*argv, "--root", new) == 0


def test_a_table_of_images_that_has_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    make_folder(old)
    files = [path.relative_to(old) for path in sorted((old / "train").rglob("*.*g"))]
    rows = ["path,label", *(f"{file.as_posix()},{file.parent.name}" for file in files)]
    (old / "images.csv").write_text("\n".join(rows))
    path = tmp_path / "a.ckpt"
    data = ImageCSVDataModule(csv=str(old / "images.csv"), image_size=32)
    save_checkpoint(path, LeNet(2), data)
    old.rename(new)
    argv = [path, "--layers", "first", "--num_images", "1", "--output", tmp_path / "out"]
    assert "--data.csv" in refuse(capsys, *argv)
    assert run(*argv, "--data.csv", new / "images.csv") == 0


def test_evidence_is_of_the_predicted_and_of_the_true_class(checkpoint: Path) -> None:
    classifier, data = load_classifier(checkpoint), load_data(checkpoint)
    subjects = choose_validation(data, classifier, 4)
    assert subjects.labels is not None
    prepared = data.prepare(subjects.images)
    predicted = classifier.predict_images(subjects.images).probabilities.argmax(1)
    labels = torch.tensor(subjects.labels)
    labels[0] = predicted[0]  # one right, and an untrained network gets another wrong
    assert (labels != predicted).any()
    subjects = subjects._replace(labels=labels.tolist())
    layer = classifier.network.get_submodule("backbone.act2")
    found = explain(classifier, subjects, prepared, "backbone.act2")
    for place, item in enumerate(found):
        assert item.true is not None
        for evidence, label in ((item.predicted, predicted[place]), (item.true, labels[place])):
            image, target = prepared[place : place + 1], label[None]
            cam = grad_cam(classifier.network, layer, image, target)[0]
            falls = occlusion(classifier.network, image, target, window=8, stride=4)[0]
            assert evidence.name == data.class_names[label]
            torch.testing.assert_close(evidence.grad_cam, cam)
            torch.testing.assert_close(evidence.occlusion, falls, rtol=1e-4, atol=1e-5)
        assert item.ranked[0][0] == item.predicted.name
        assert item.ranked[0][1] >= item.ranked[1][1] >= item.ranked[2][1]
    unknown = explain(classifier, subjects._replace(labels=None), prepared, "backbone.act2")
    assert [item.true for item in unknown] == [None] * 4
    (mirrored, *_) = explain(classifier, subjects, prepared, "backbone.act2", mirrors="horizontal")
    cam = grad_cam(classifier.network, layer, prepared[:1], predicted[:1], mirrors="horizontal")[0]
    torch.testing.assert_close(mirrored.predicted.grad_cam, cam)
    assert not torch.equal(cam, found[0].predicted.grad_cam)


def choose(num_images: int) -> tuple[ShapesDataModule, Subjects]:
    data = ShapesDataModule(num_images=200, num_test=20)
    return data, choose_validation(data, LeNet(10), num_images)


def test_validation_images_are_one_of_each_class_and_then_the_next() -> None:
    data, subjects = choose(12)
    assert subjects.labels == [*range(10), 0, 1]
    indices = [int(name.removeprefix("image ")) for name in subjects.names]
    assert len(set(indices)) == 12
    assert set(indices) <= set(data.stage_indices("val").tolist())
    images, labels = data.load("train")
    assert torch.equal(images[indices], subjects.images)
    assert labels[indices].tolist() == subjects.labels


def test_layers_are_measured_over_validation_images_alone() -> None:
    data, subjects = choose(2)
    expected = data.load("train")[0][data.stage_indices("val")]
    assert torch.equal(subjects.measured, expected)
    assert subjects.measured_name == f"{len(expected)} validation images"


def test_more_images_than_there_are_is_all_of_them() -> None:
    data, subjects = choose(10_000)
    assert len(subjects.images) == len(data.stage_indices("val"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--layers", "nothing*"], "no layer is 'nothing*'"),
        (["--layers", "Linear"], "puts out (4, 120): no maps to draw"),
        (["--cam_layer", "backbone.conv*"], "is 2 layers"),
        (["--cam_layer", "head"], "puts out no maps"),
        (["--labels", "star"], "--labels without --images"),
        (["--images", "nowhere.png"], "there is no image nowhere.png"),
        (["--num_images", "0"], "0 is below 1"),
        (["--num_images", "many"], "many"),
        (["--colour", "red"], "--colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_refused_before_anything_is_written(
    argv: list[str], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refuse(capsys, checkpoint, *argv)
    assert not (checkpoint.parent.parent / "figures").exists()


def test_network_without_fine_maps_needs_a_layer_by_name(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnn_lightning.analysis.attribution.MIN_CELLS", 100)
    assert "--cam_layer" in refuse(capsys, checkpoint)
    few = ["--layers", "first", "--num_images", "1"]
    assert run(checkpoint, "--cam_layer", "backbone.conv2", *few) == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["cat"], "knows no class cat"), (["star", "bar"], "names 2 classes for 3 images")],
    ids=str,
)
def test_classes_that_do_not_fit_are_refused(
    labels: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = make_folder(tmp_path / "photos", per_class=3)
    argv = [checkpoint, "--images", photos / "train/cat", "--labels", *labels]
    assert message in refuse(capsys, *argv)


def test_folder_without_images_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refuse(capsys, checkpoint, "--images", tmp_path / "empty")


def test_checkpoint_outside_a_run_needs_a_folder_for_the_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = checkpoint.rename(tmp_path / "moved.ckpt")
    assert "--output FOLDER" in refuse(capsys, moved)
