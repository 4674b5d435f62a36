"""A classifier and its data come back from a checkpoint alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from make_checkpoint import save_checkpoint
from make_data import make_folder
from torch import nn

from cnn_lightning.classifiers import ImageClassifier, LeNet, optimization
from cnn_lightning.classifiers.base import CHECKPOINT_KEY
from cnn_lightning.commands.loading import find_path, load_classifier, load_data
from cnn_lightning.data import ImageFolderDataModule, ShapesDataModule
from cnn_lightning.errors import UserError


class MyLeNet(LeNet):
    """A classifier of the user's own."""


def change(path: Path, **values: object) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint[CHECKPOINT_KEY].update(values)
    torch.save(checkpoint, path)


def test_classifier_and_data_are_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    saved = save_checkpoint(path, LeNet(10, activation="relu"))
    loaded = load_classifier(path)
    assert type(loaded) is LeNet
    assert not any(module.training for module in loaded.modules())
    assert loaded.class_names == ShapesDataModule.class_names
    for key, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    data = load_data(path)
    assert isinstance(data, ShapesDataModule)
    assert (data.num_images["train"], data.seed) == (100, 3)
    images = data.load("test")[0]
    assert loaded.preprocessing is not None
    assert torch.equal(data.prepare(images), loaded.preprocessing(images))
    assert torch.equal(
        loaded.predict_images(images).probabilities, saved.predict_images(images).probabilities
    )


def test_weights_are_not_asked_for_again(tmp_path: Path) -> None:
    origin, path = tmp_path / "weights.pt", tmp_path / "a.ckpt"
    torch.save(LeNet(10).network.state_dict(), origin)
    saved = save_checkpoint(path, LeNet(10, weights=str(origin)))
    origin.unlink()
    loaded = load_classifier(path)
    for key, value in saved.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[key])


def test_data_that_has_moved_is_found_at_its_new_root(tmp_path: Path) -> None:
    old, new, path = tmp_path / "old", tmp_path / "new", tmp_path / "a.ckpt"
    make_folder(old)
    save_checkpoint(
        path, LeNet(2, image_size=32), ImageFolderDataModule(root=str(old), image_size=32)
    )
    old.rename(new)
    data = load_data(path, root=str(new))
    assert data.class_names == ("cat", "dog")
    with pytest.raises(UserError, match="old"):
        load_data(path).load("train")


class FewShapes(ShapesDataModule):
    """Decides some of the options of the class that it is built on, and takes the others."""

    def __init__(self, tens: int, **kwargs: Any) -> None:
        super().__init__(num_images=10 * tens, val_fraction=0.2, **kwargs)


class FixedShapes(FewShapes):
    """Takes one option and no other."""

    def __init__(self, tens: int = 2) -> None:
        super().__init__(tens, num_test=10)


class AnyShapes(FewShapes):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize(
    "data", [FewShapes(3, num_test=20), FixedShapes(3), FixedShapes(), AnyShapes(3, seed=1)]
)
def test_data_of_the_users_own_is_built_from_the_arguments_of_its_class(
    data: FewShapes, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a.ckpt", LeNet(10), data)
    loaded = load_data(tmp_path / "a.ckpt")
    assert type(loaded) is type(data)
    assert isinstance(loaded, FewShapes)
    assert (loaded.num_images, loaded.seed) == (data.num_images, data.seed)
    assert (loaded.val_fraction, loaded.batch_size) == (0.2, data.batch_size)


class Smooth(LeNet):
    """Decides an option of the class that it is built on, and takes the others."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, label_smoothing=0.2, **kwargs)


class Decided(ImageClassifier):
    """Takes its number of classes and no option."""

    def __init__(self, num_classes: int) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 32), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10))
        adam = {"class_path": "Adam", "init_args": {"lr": 0.01}}
        super().__init__(network, label_smoothing=0.2, optimizer=adam)


class AnyLeNet(Smooth):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize(
    "saved", [Smooth(10, activation="relu"), Decided(10), AnyLeNet(10, activation="relu")]
)
def test_classifier_of_the_users_own_is_built_from_the_arguments_of_its_class(
    saved: ImageClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, saved)
    for loaded in (load_classifier(path), type(saved).load_from_checkpoint(path)):
        assert type(loaded) is type(saved)
        assert repr(loaded.network) == repr(saved.network)
        assert loaded.label_smoothing == 0.2
        assert loaded.optimizer == saved.optimizer
    stored = optimization.stored_optimization(torch.load(path, weights_only=True))
    assert stored == (saved.optimizer, saved.schedule, "step")


def test_class_of_the_users_own_is_found_where_it_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, MyLeNet(10))
    assert type(load_classifier(path)) is MyLeNet


def test_built_in_class_is_found_by_its_name_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(10))
    change(path, classifier="cnn_lightning.elsewhere.LeNet")
    assert type(load_classifier(path)) is LeNet


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module.Net", "no_such_module.Net was not imported"),
        ("os.system", "os.system is no ImageClassifier"),
        ("collections.OrderedDict", "collections.OrderedDict is no ImageClassifier"),
        ("cnn_lightning.classifiers.Predictions", "Predictions is no ImageClassifier"),
    ],
)
def test_anything_but_a_classifier_is_refused(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(10))
    change(path, classifier=name)
    with pytest.raises(UserError, match=message):
        load_classifier(path)


def test_checkpoint_that_does_not_fit_its_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(10))
    change(path, classifier="cnn_lightning.classifiers.vgg.VGG16")
    with pytest.raises(UserError, match=r"a.ckpt does not fit VGG16"):
        load_classifier(path)


def test_argument_that_the_data_does_not_take_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(10))
    with pytest.raises(UserError, match=r"ShapesDataModule: .*colour"):
        load_data(path, colour="red")


def test_checkpoint_without_data_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, LeNet(10))
    change(path, data=None)
    with pytest.raises(UserError, match=r"a.ckpt does not know its data"):
        load_data(path)


def test_plain_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save(LeNet(10).state_dict(), tmp_path / "a.pt")
    for load in (load_classifier, load_data):
        with pytest.raises(UserError, match="was not written by cnn-lightning"):
            load(tmp_path / "a.pt")


def test_last_and_best_are_those_of_the_newest_version_of_the_run(tmp_path: Path) -> None:
    for version in (0, 1):
        folder = tmp_path / f"lenet/version_{version}/checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
    (tmp_path / "lenet/version_0/checkpoints/best.ckpt").touch()
    assert find_path("last", "lenet", tmp_path) == folder / "last.ckpt"
    assert find_path("best", "lenet", tmp_path).parent.parent.name == "version_0"
    assert find_path(str(folder / "last.ckpt"), None, tmp_path) == folder / "last.ckpt"


@pytest.mark.parametrize(
    ("asked", "run", "message"),
    [
        ("nowhere.ckpt", None, "there is no checkpoint nowhere.ckpt"),
        ("best", None, "best of which run"),
        ("best", "vgg", "no run vgg in .* has a best.ckpt"),
    ],
)
def test_checkpoint_that_is_not_there_is_refused(
    asked: str, run: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        find_path(asked, run, tmp_path)
