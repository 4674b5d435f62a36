"""One contract for all classifiers, in Python and through a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from make_checkpoint import save_checkpoint
from make_data import make_folder
from PIL import Image
from small import narrow_networks

from cnn_lightning import classifiers
from cnn_lightning.augment import average_views
from cnn_lightning.checkpoint_io import AtomicCheckpointIO
from cnn_lightning.classifiers import (
    VGG16,
    Airbench,
    ImageClassifier,
    Inception,
    LeNet,
    ResNet,
    TorchvisionClassifier,
)
from cnn_lightning.data import ImageFolderDataModule, ShapesDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.preprocessing import Preprocessing

# a row per class, built small
ROWS: dict[str, Callable[[], ImageClassifier]] = {
    "LeNet": lambda: LeNet(10, activation="relu"),
    "VGG16": lambda: VGG16(10),
    "Airbench": lambda: Airbench(10, widths=(8, 16, 16)),
    "ResNet": lambda: ResNet(10),
    "Inception": lambda: Inception(10, version="googlenet", stem="small"),
    "TorchvisionClassifier": lambda: TorchvisionClassifier(10, name="mobilenet_v3_small"),
}
EVERY = pytest.mark.parametrize("name", ROWS)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_networks(monkeypatch)


def test_every_classifier_has_a_row() -> None:
    found = {
        name
        for name in classifiers.__all__
        if isinstance(kind := getattr(classifiers, name), type)
        and issubclass(kind, ImageClassifier)
        and kind is not ImageClassifier
    }
    assert found == set(ROWS)


def train(classifier: ImageClassifier, folder: Path, steps: int = 2) -> tuple[L.Trainer, Path]:
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_steps=steps,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=AtomicCheckpointIO(),
    )
    data = ShapesDataModule(num_images=40, num_test=20, batch_size=4, eval_batch_size=4)
    trainer.fit(classifier, data)
    path = folder / "some.ckpt"
    trainer.save_checkpoint(path)
    return trainer, path


@EVERY
def test_checkpoint_loads_without_a_config_and_without_running_code(
    name: str, tmp_path: Path
) -> None:
    classifier = ROWS[name]()
    _, path = train(classifier, tmp_path)
    torch.load(path, weights_only=True)
    again = type(classifier).load_from_checkpoint(path, weights_only=True)
    assert again.class_names == classifier.class_names
    assert again.preprocessing == classifier.preprocessing
    state = classifier.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    found, wanted = again.predict_images(images), classifier.predict_images(images)
    assert torch.equal(found.probabilities, wanted.probabilities)


@EVERY
def test_two_runs_with_one_seed_give_the_same_bits(name: str, tmp_path: Path) -> None:
    states = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        L.seed_everything(0, verbose=False)
        classifier = ROWS[name]()
        train(classifier, tmp_path / run)
        states.append(classifier.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@EVERY
def test_bf16_on_the_cpu_trains(name: str, tmp_path: Path) -> None:
    trainer = L.Trainer(
        max_steps=1,
        val_check_interval=1,
        limit_val_batches=1,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = ShapesDataModule(num_images=40, num_test=20, batch_size=2, eval_batch_size=2)
    trainer.fit(ROWS[name](), data)
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


def test_images_are_predicted_as_test_predicts_them(tmp_path: Path) -> None:
    classifier = LeNet(10)
    trainer, _ = train(classifier, tmp_path)
    data = ShapesDataModule(num_images=40, num_test=20, batch_size=8, eval_batch_size=20)
    (output,) = trainer.predict(classifier, data)  # type: ignore[misc]
    images, _ = data.load("test")
    found = classifier.predict_images(images)
    assert torch.equal(found.probabilities, output.probabilities)
    assert found.class_names == [data.class_names[i] for i in output.probabilities.argmax(1)]


def test_test_and_predict_look_several_times_and_validation_once(tmp_path: Path) -> None:
    data = ShapesDataModule(num_images=40, num_test=20, eval_batch_size=20)
    plain = LeNet(10)
    trainer, path = train(plain, tmp_path)
    averaged = LeNet.load_from_checkpoint(path, test_augment="flip_shift")
    looks = [trainer.validate(one, data, verbose=False)[0]["val/loss"] for one in (plain, averaged)]
    assert looks[0] == looks[1]
    images, labels = data.load("test")
    with torch.no_grad():
        logits = average_views(averaged.eval(), data.prepare(images), "flip_shift")
    measured = trainer.test(averaged, data, verbose=False)[0]["test/loss"]
    assert measured == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert measured != pytest.approx(trainer.test(plain, data, verbose=False)[0]["test/loss"])
    found = averaged.predict_images(images).probabilities
    torch.testing.assert_close(found, logits.softmax(1))
    (output,) = trainer.predict(averaged, data)  # type: ignore[misc]
    assert torch.equal(found, output.probabilities)


def test_tensors_pictures_and_files_are_predicted_alike(tmp_path: Path) -> None:
    classifier = LeNet(10)
    train(classifier, tmp_path)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    paths = []
    for number, picture in enumerate(pictures):
        paths.append(tmp_path / f"{number}.png")
        picture.save(paths[-1])
    wanted = classifier.predict_images(images).probabilities
    assert torch.equal(classifier.predict_images(pictures).probabilities, wanted)
    assert torch.equal(classifier.predict_images(paths).probabilities, wanted)


def test_images_of_any_size_are_predicted(tmp_path: Path) -> None:
    classifier = LeNet(10)
    train(classifier, tmp_path)
    images = torch.randint(256, (2, 3, 100, 60), dtype=torch.uint8)
    rows = classifier.predict_images(images).probabilities
    torch.testing.assert_close(rows.sum(1), torch.ones(2))


def test_images_of_a_size_that_is_no_square_are_predicted_whole() -> None:
    classifier = ResNet(2, 1)
    classifier.class_names, classifier.image_shape = ["a", "b"], (1, 20, 32)
    classifier.preprocessing = Preprocessing((0.5,), (0.5,), None)
    images = torch.randint(256, (3, 1, 20, 32), dtype=torch.uint8)
    with torch.no_grad():
        wanted = classifier.eval()(classifier.preprocessing(images)).softmax(1)
    torch.testing.assert_close(classifier.predict_images(images).probabilities, wanted)


def test_prediction_leaves_the_mode_of_every_layer(tmp_path: Path) -> None:
    classifier = ResNet(10, freeze="backbone")
    train(classifier, tmp_path)
    classifier.train()
    modes = [module.training for module in classifier.modules()]
    classifier.predict_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert [module.training for module in classifier.modules()] == modes


def test_a_classifier_that_saw_no_data_says_so() -> None:
    with pytest.raises(UserError, match="does not know its images"):
        LeNet(10).predict_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("size", [20, 400])
def test_a_size_the_network_cannot_take_is_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the least it can take is 28"):
        train(LeNet(10, image_size=size), tmp_path)


def test_small_images_are_enlarged_for_a_network_that_needs_it(tmp_path: Path) -> None:
    classifier = Inception(10, version="v3", image_size=75)
    data = ShapesDataModule(num_images=40, num_test=20)
    classifier.adapt_to(data)
    assert data.prepare(data.load("train")[0][:2]).shape == (2, 3, 75, 75)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(UserError, match=r"takes images of 1 .* data's have 3\n  build it with in"):
        LeNet(10, 1).adapt_to(ShapesDataModule(num_images=20))


@pytest.mark.parametrize("loop", ["fit", "test"])
def test_images_that_nobody_prepared_are_refused(loop: str) -> None:
    data = ShapesDataModule(num_images=20, num_test=10)
    data.setup(loop)
    loader = data.train_dataloader() if loop == "fit" else data.test_dataloader()
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with pytest.raises(UserError, match="not prepared\n  give the Trainer the data module"):
        getattr(trainer, loop)(LeNet(10), loader)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    classifier = LeNet(10)
    trainer, _ = train(classifier, tmp_path)
    data = ShapesDataModule(num_images=40, num_test=20)
    data.class_names = tuple(reversed(data.class_names))
    with pytest.raises(UserError, match="use the data set it was trained on"):
        trainer.test(classifier, data, verbose=False)


def test_images_of_another_size_are_taken_only_if_someone_asked_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_folder(tmp_path / "small", size=(32, 32))
    large = make_folder(tmp_path / "large", size=(48, 48))
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(2), ImageFolderDataModule(root=str(small)))
    classifier = LeNet.load_from_checkpoint(path)
    told = "images are 3×48×48, those of the checkpoint are 3×32×32"
    with pytest.raises(UserError, match=rf"{told}\n.*image_size=32"):
        classifier.adapt_to(ImageFolderDataModule(root=str(large)))
    with pytest.raises(UserError, match=r"are 1×32×32, .*\n.*3 channel"):
        classifier.adapt_to(ImageFolderDataModule(root=str(small), channels=1))
    classifier.adapt_to(ImageFolderDataModule(root=str(large), image_size=32))
    assert classifier.image_shape == (3, 32, 32)
    assert capsys.readouterr().out == ""
    data = ImageFolderDataModule(root=str(small), image_size=48)
    classifier.adapt_to(data)
    assert classifier.image_shape == (3, 48, 48)
    assert told in capsys.readouterr().out
    # this network takes 32 pixels at most
    assert data.prepare(torch.zeros(1, 3, 48, 48, dtype=torch.uint8)).shape == (1, 3, 32, 32)
