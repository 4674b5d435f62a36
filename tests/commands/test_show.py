"""`show` on every kind of data set: what it writes, what it says, what it refuses."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from make_data import make_cifar10, make_folder, make_mnist
from PIL import Image

from cnn_lightning.cli import main
from cnn_lightning.commands.show import NUM_DRAWS, DataSetShow, compare_statistics, draw_augmented
from cnn_lightning.data import (
    Batch,
    CIFAR10DataModule,
    ImageCSVDataModule,
    ImageFolderDataModule,
    ShapesDataModule,
)

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL_SHAPES = ["--data=ShapesDataModule", "--data.num_images=60", "--data.num_test=20"]
PICTURES = ("samples", "class_balance", "mean_images", "channels", "augmentation")


def show(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """Run the command; what it said. Every file that it names is there and whole."""
    capsys.readouterr()
    assert main(["show", *map(str, argv)]) == 0
    said = capsys.readouterr().out
    paths = [Path(line) for line in said.splitlines() if line.endswith((".png", ".csv"))]
    assert [path.name for path in paths] == [
        *(f"{name}.png" for name in PICTURES),
        "statistics.csv",
        "channels.csv",
    ]
    for path in paths:
        assert path.stat().st_size < 1_000_000
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
    assert {path.name for path in paths} == {path.name for path in paths[0].parent.iterdir()}
    return said


def refuse(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    capsys.readouterr()
    assert main(["show", *map(str, argv)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    return message


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_counts_are_those_of_the_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "photos", classes=('comma, and "quote"', "dog"), size=(8, 8))
    (tmp_path / "photos/train/dog/dog_000.png").unlink()
    said = show(
        capsys, "--data=ImageFolderDataModule", "--data.root", tmp_path / "photos",
        "--data.val_fraction=0.25", "--output", tmp_path / "out",
    )  # fmt: skip
    data = ImageFolderDataModule(root=str(tmp_path / "photos"), val_fraction=0.25)
    expected = []
    for split, stage in (("training", "train"), ("validation", "val"), ("test", "test")):
        labels = data.load("test" if stage == "test" else "train")[1]
        chosen = labels[data.stage_indices(stage)]  # type: ignore[arg-type]  # one of three
        for label, name in enumerate(data.class_names):
            expected.append((split, name, str(int((chosen == label).sum()))))
    rows = rows_of(tmp_path / "out/statistics.csv")
    assert [(row["split"], row["class"], row["images"]) for row in rows] == expected
    assert [row[2] for row in expected] == ["9", "8", "3", "3", "12", "12"]
    assert "17 training, 6 validation, 24 test" in said
    assert "images 3×8×8" in said


def test_statistics_are_of_the_training_images_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = show(capsys, *SMALL_SHAPES, "--output", tmp_path)
    data = ShapesDataModule(num_images=60, num_test=20)
    values = data.load("train")[0][data.stage_indices("train")].double() / 255
    rows = rows_of(tmp_path / "channels.csv")
    assert [row["channel"] for row in rows] == ["red", "green", "blue"]
    for channel, row in enumerate(rows):
        assert float(row["mean"]) == pytest.approx(values[:, channel].mean().item(), abs=1e-6)
        deviation = values[:, channel].std(correction=0).item()
        assert float(row["std"]) == pytest.approx(deviation, abs=1e-6)
        assert float(row["constant_mean"]) == data.mean[channel]
        assert float(row["constant_std"]) == data.std[channel]
        assert f"{float(row['mean']):.4f}" in said
    assert "augment: none; to see some, add --data.augment crop_flip" in said
    everything = data.load("train")[0].double() / 255
    assert abs(everything[:, 0].mean() - values[:, 0].mean()) > 1e-4


def test_constants_that_are_off_are_named() -> None:
    assert compare_statistics(
        [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]], [[0.5, 0.48, 0.53], [0.2] * 3]
    ) == ["mean: the constants are more than 0.01 off (green by 0.020, blue by 0.030)"]
    assert "right within 0.01" in compare_statistics([[0.495], [0.2]], [[0.5], [0.205]])[0]


@pytest.mark.parametrize("augment", ["flip", "crop", "crop_flip", "crop_alternating_flip"])
def test_augmented_images_are_those_of_training(augment: str) -> None:
    data = ShapesDataModule(num_images=60, num_test=20, augment=augment)  # type: ignore[arg-type]
    image = data.load("train")[0][0]
    shown = draw_augmented(data, image)
    assert shown.dtype == torch.uint8
    assert len(shown.unique(dim=0)) > 1
    copies = Batch(
        image.repeat(NUM_DRAWS, 1, 1, 1),
        torch.zeros(NUM_DRAWS, dtype=torch.int64),
        torch.arange(NUM_DRAWS),
    )
    progress = SimpleNamespace(current=SimpleNamespace(ready=0))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]  # what the data module asks of it
        training=True,
        global_rank=0,
        overfit_batches=0,
        current_epoch=0,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    trained_on = data.on_after_batch_transfer(copies, 0).images
    assert torch.equal(trained_on, data.prepare(shown))
    progress.current.ready = 1  # another batch has other draws
    assert not torch.equal(data.on_after_batch_transfer(copies, 0).images, trained_on)


def test_no_augmentation_is_said_in_the_title(tmp_path: Path) -> None:
    data = ShapesDataModule(num_images=60, num_test=20)
    figure = DataSetShow(data, tmp_path).draw_augmentation()
    title, *names = [text.get_text() for text in figure.texts]
    assert "augment: none" in title
    assert names == ["original"]
    data.augment = "flip"
    title, *names = [
        text.get_text() for text in DataSetShow(data, tmp_path).draw_augmentation().texts
    ]
    assert "augment: flip" in title
    assert names == ["original", *(f"draw {number}" for number in range(1, 16))]


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_what_is_not_drawn_is_said_in_the_title(augment: str, tmp_path: Path) -> None:
    def title(**options: float) -> str:
        data = ShapesDataModule(num_images=60, num_test=20, augment=augment, **options)  # type: ignore[arg-type]
        return DataSetShow(data, tmp_path).draw_augmentation().texts[0].get_text()

    assert "but for" not in title()
    assert "but for" not in title(start_size=32)  # that is the whole size
    assert title(mixup=0.2, start_size=16).endswith("but for mixup and start_size")
    assert title(cutmix=1.0).endswith("but for cutmix")


def test_own_augmentation_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Inverted(ShapesDataModule):
        def augment_images(self, images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return 255 - images

    class Prepared(ShapesDataModule):
        def prepare_training(self, *args: Any) -> Batch:
            raise NotImplementedError

    inverted, prepared = (
        DataSetShow(kind(num_images=60, num_test=20), tmp_path) for kind in (Inverted, Prepared)
    )
    title, *names = [text.get_text() for text in inverted.draw_augmentation().texts]
    assert "with its own augment_images" in title
    assert names[:2] == ["original", "draw 1"]
    (title, _) = [text.get_text() for text in prepared.draw_augmentation().texts]
    assert title.endswith("as it is stored,\nbut for its own prepare_training")
    inverted._summarise([[0.0], [1.0]], [[0.0], [1.0]], [])
    assert "to see some" not in capsys.readouterr().out


def test_fewer_images_than_draws_may_flip_by_turns(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", per_class=4, size=(8, 8))
    data = ImageFolderDataModule(root=str(tmp_path / "photos"), augment="alternating_flip")
    shown = draw_augmented(data, data.load("train")[0][0])
    assert len(shown) == NUM_DRAWS > len(data.load("train")[0])
    assert len(shown.unique(dim=0)) == 2


def test_a_table_without_test_images(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", per_class=4, size=(8, 8), test=False)
    lines = ["path,label,split"]
    for number, path in enumerate(sorted(photos.rglob("*.*g"))):
        lines.append(f"{path},{path.parent.name},{'val' if number % 4 == 1 else 'train'}")
    (photos / "images.csv").write_text("\n".join(lines))
    shown = DataSetShow(ImageCSVDataModule(csv=str(photos / "images.csv")), tmp_path / "out")
    assert shown.counts == {"training": [3, 3], "validation": [1, 1]}


def test_mnist_without_test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_mnist(tmp_path / "data", gzip=True, variant="fashion")
    argv = ["--data=MNISTDataModule", "--data.variant=fashion"]
    argv += ["--data.root", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    said = show(capsys, *argv)
    told = [line for line in said.splitlines() if line.startswith("without the test images: ")]
    assert len(told) == 1
    assert "t10k-labels-idx1-ubyte" in told[0]
    rows = rows_of(tmp_path / "out/statistics.csv")
    assert {row["split"] for row in rows} == {"training", "validation"}


def test_damaged_test_files_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_mnist(tmp_path)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"nonsense")
    argv = ["--data=MNISTDataModule", "--data.root", tmp_path, "--output", tmp_path / "out"]
    assert "t10k-labels-idx1-ubyte" in refuse(capsys, *argv)


def test_missing_training_files_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_mnist(tmp_path)
    (folder / "train-labels-idx1-ubyte").unlink()
    argv = ["--data=MNISTDataModule", "--data.root", tmp_path, "--output", tmp_path / "out"]
    assert "cannot download train-labels-idx1-ubyte" in refuse(capsys, *argv)


def test_cifar10_without_test_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10DataModule, "files", make_cifar10(tmp_path))
    argv = ["--config", CONFIGS / "cifar10_vgg16_head.yaml", "--data.root", tmp_path]
    argv += ["--log_dir", tmp_path / "logs"]
    # the recipe's weights are not there, and are not asked for
    (tmp_path / "cifar-10-batches-py/test_batch").unlink()
    said = show(capsys, *argv)
    assert "without the test images: " in said
    assert "\n180 training, 20 validation\n" in said
    assert str(tmp_path / "logs/show/cifar10_vgg16_head/samples.png") in said


def test_sample_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = show(capsys, "--config", CONFIGS / "quickstart.yaml", "--output", tmp_path)
    assert "3,600 training, 400 validation, 1,000 test" in said
    assert "right within 0.01" in said
    assert "crop_flip" not in said  # the recipe augments


@pytest.mark.parametrize("count", [2, 60])
def test_few_and_many_classes(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [f"class {number:02}" for number in range(count)]
    make_folder(tmp_path / "photos", classes=classes, per_class=4, size=(12, 20), test=False)
    data = ImageFolderDataModule(root=str(tmp_path / "photos"), image_size=12)
    shown = DataSetShow(data, tmp_path / "out")
    samples = [text.get_text() for text in shown.draw_samples(10).texts]
    means = [text.get_text() for text in shown.draw_mean_images().texts]
    balance = shown.draw_class_balance().get_suptitle()
    assert "2 training images of each class" in samples[0]
    if count == 2:
        assert samples[1:] == means[1:] == classes
        assert not any("classes" in text for text in (samples[0], means[0], balance))
    else:
        assert "20 of 60 classes are shown" in samples[0]
        assert "50 of 60 classes are shown" in means[0]
        assert "40 of 60 classes" in balance
        assert (len(samples), len(means)) == (21, 51)
        assert (samples[1], samples[-1]) == (classes[0], classes[-1])


def test_the_folder_is_named_after_the_data_where_there_is_no_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    show(capsys, *SMALL_SHAPES, "--log_dir", logs)
    assert (logs / "show/ShapesDataModule/samples.png").is_file()


def test_number_of_samples(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = DataSetShow(ShapesDataModule(num_images=60, num_test=20), tmp_path)
    few, many = (shown.draw_samples(count) for count in (3, 5))
    assert many.images[0].get_array().shape[0] == few.images[0].get_array().shape[0]
    assert "3 training images" in few.texts[0].get_text()
    assert "5 training images" in many.texts[0].get_text()
    assert "--images" in refuse(capsys, *SMALL_SHAPES, "--images=21")
    assert "--images" in refuse(capsys, *SMALL_SHAPES, "--images=0")
    assert "--images" in refuse(capsys, *SMALL_SHAPES, "--images=many")


def test_a_config_is_checked_as_fit_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    good = "data: ShapesDataModule\nmodel: {class_path: LeNet, init_args: {activation: relu}}\n"
    for wrong in (
        good.replace("activation", "activaton"),
        good + "trainer: {max_epoch: 3}\n",
        good + "optimiser: {class_path: torch.optim.SGD}\n",
        good + "optimizer: {class_path: torch.optim.SGD, init_args: {lrr: 1}}\n",
        good.replace("activation: relu", "num_classes: 3"),
        good.replace("ShapesDataModule", "{class_path: ShapesDataModule, init_args: {sede: 1}}"),
        good.replace("data: ShapesDataModule\n", ""),
    ):
        recipe.write_text(wrong)
        message = refuse(capsys, "--config", recipe, "--output", tmp_path / "out")
        assert len(message.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--config FILE or --data CLASS"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--data=ShapesDataModul"], "perhaps ShapesDataModule"),
        ([*SMALL_SHAPES, "--imges=3"], "--imges"),
        ([*SMALL_SHAPES, "--ckpt_path=last"], "no checkpoint"),
        ([*SMALL_SHAPES, "--data.num_images=3"], "too small"),
        (["--data=ImageFolderDataModule", "--data.root=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refuse(capsys, *argv)


def test_an_empty_class_folder_and_a_place_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "photos", size=(8, 8))
    (tmp_path / "photos/train/empty").mkdir()
    argv = ["--data=ImageFolderDataModule", "--data.root", tmp_path / "photos"]
    assert "train/empty holds no images" in refuse(capsys, *argv, "--output", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "--output" in refuse(capsys, *SMALL_SHAPES, "--output", tmp_path / "file")


def test_nothing_but_the_data_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object, **__: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr("lightning.pytorch.cli.LightningCLI._instantiate_trainer", built)
    monkeypatch.setattr("cnn_lightning.networks.ResidualNetwork.__init__", built)
    argv = ["--config", str(CONFIGS / "shapes_resnet18.yaml"), "--data.num_images=60"]
    argv += ["--log_dir", str(tmp_path)]
    assert main(["fit", *argv]) == 2
    assert "ResNet: built" in capsys.readouterr().err
    show(capsys, *argv, "--run=mine", "--trainer.precision=16-mixed")
    assert (tmp_path / "show/mine/samples.png").is_file()
