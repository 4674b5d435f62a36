"""Weights, freezing, and features that are computed once."""

import os
import shutil
import sys
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from make_data import make_folder, make_weights
from small import UNDRAWN, draw_no_weights, narrow_networks
from torch import nn
from torchvision import models

from cnn_lightning.callbacks import FeatureCache
from cnn_lightning.classifiers import (
    VGG16,
    ImageClassifier,
    Inception,
    ResNet,
    TorchvisionClassifier,
    transfer,
)
from cnn_lightning.cli import main
from cnn_lightning.commands.arguments import read_start
from cnn_lightning.data import Features, ImageDataModule
from cnn_lightning.errors import DamagedFileError, UserError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.networks import Network, resnet

RECIPE = """
data:
  class_path: ImageFolderDataModule
  init_args: {{root: {root}, image_size: 32, augment: none, batch_size: 8, eval_batch_size: 8}}
model:
  class_path: ResNet
  init_args: {{weights: {weights}, freeze: {freeze}, stem: imagenet, image_size: 32}}
optimizer: {{class_path: Adam, init_args: {{lr: 0.01}}}}
trainer: {{max_epochs: 2}}
"""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_networks(monkeypatch)


@pytest.fixture
def photos(narrow: None, tmp_path: Path) -> Path:
    return make_photos(tmp_path)


def make_photos(folder: Path) -> Path:
    return make_folder(folder / "photos", classes=("ant", "bee", "cow"), per_class=14)


def fit(
    photos: Path, run: str, *more: str, weights: str = "null", freeze: str = "backbone"
) -> Path:
    recipe = photos.parent / f"{run}.yaml"
    recipe.write_text(RECIPE.format(root=photos, weights=weights, freeze=freeze))
    log_dir = photos.parent / "logs"
    argv = ["fit", "--config", str(recipe), "--log_dir", str(log_dir), *UNDRAWN, *more]
    assert main(argv) == 0
    return log_dir / run / "version_0"


def load(run: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
    return content


def backbone(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in checkpoint["state_dict"].items() if k.startswith("network.backbone.")}


class Frozen(NamedTuple):
    """Runs that train the head alone; the file of weights that they took is gone."""

    photos: Path
    pretrained: Path  # the same weights, still there
    kept: Path
    computed: Path


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    photos = make_photos(tmp_path_factory.mktemp("frozen"))
    weights = photos.parent / "weights.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        narrow_networks(patch)
        pretrained = fit(photos, "pretrained", freeze="null") / "checkpoints/last.ckpt"
        shutil.copy(pretrained, weights)
        kept = fit(photos, "kept", weights=str(weights))
        computed = fit(photos, "computed", "--feature_cache.enabled=false", weights=str(weights))
    weights.unlink()
    return Frozen(photos, pretrained, kept, computed)


@pytest.mark.parametrize("keeps", [True, False])
def test_frozen_backbone_does_not_move_by_one_bit(keeps: bool, frozen: Frozen) -> None:
    run = frozen.kept if keeps else frozen.computed
    before = backbone(torch.load(frozen.pretrained, weights_only=True))
    after = backbone(load(run))
    assert before.keys() == after.keys()
    assert any("running_mean" in key for key in before)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert bool([*run.glob("features/*.npy")]) == keeps


def test_unfrozen_backbone_does_move(photos: Path, frozen: Frozen) -> None:
    run = fit(photos, "free", weights=str(frozen.pretrained), freeze="null")
    before = backbone(torch.load(frozen.pretrained, weights_only=True))
    assert not all(torch.equal(value, before[key]) for key, value in backbone(load(run)).items())


def test_kept_features_give_what_computing_them_gives(frozen: Frozen) -> None:
    kept, computed = load(frozen.kept), load(frozen.computed)
    for key, value in kept["state_dict"].items():
        assert torch.equal(value, computed["state_dict"][key]), key
    scores = [
        next(v for k, v in content["callbacks"].items() if k.startswith("BestCheckpoint"))
        for content in (kept, computed)
    ]
    assert scores[0]["best_model_score"] == scores[1]["best_model_score"]


@pytest.mark.skipif(sys.platform != "linux", reason="counts the process's pages in /proc")
def test_kept_features_do_not_stay_in_memory(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Features] = {}

    def use(self: ImageDataModule, stage: str, features: Features) -> None:
        found[stage] = features

    monkeypatch.setattr(ImageDataModule, "use_features", use)
    run = fit(photos, "read")
    for path in (run / "features").glob("*.npy"):
        features = found[path.name.partition("-")[0]]
        places = torch.randperm(len(features.rows))
        assert features.read is not None
        before = mapped_kib(path)
        assert torch.equal(features.read(places), torch.from_numpy(np.load(path))[places])
        assert mapped_kib(path) == before
        assert float(features.rows.sum()) > 0  # from the map, whose pages the process then has
        assert mapped_kib(path) > before
    assert found.keys() == {"train", "val"}


def mapped_kib(path: Path) -> int:
    """KiB of a file's maps that this process has in memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    places = [number for number, line in enumerate(lines) if line.endswith(path.name)]
    return sum(
        int(next(line for line in lines[number:] if line.startswith("Rss:")).split()[1])
        for number in places
    )


def test_features_cut_off_while_they_are_read_are_said_to_be_damaged(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Features] = []
    monkeypatch.setattr(
        ImageDataModule, "use_features", lambda self, stage, features: found.append(features)
    )
    run = fit(photos, "cut")
    for path in (run / "features").glob("*.npy"):
        os.truncate(path, path.stat().st_size - 4)
    for features in found:
        last = torch.tensor([len(features.rows) - 1])
        with pytest.raises(DamagedFileError, match="delete it"):
            features.read(last)  # type: ignore[misc]  # it is there


@pytest.mark.parametrize("keeps", [True, False])
def test_backbone_sees_each_image_once_however_many_epochs(
    keeps: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = resnet._Backbone.forward

    def counted(self: resnet._Backbone, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(resnet._Backbone, "forward", counted)
    totals = []
    for epochs in (1, 2):
        seen.clear()
        more = (f"--feature_cache.enabled={keeps}", f"--trainer.max_epochs={epochs}")
        fit(photos, f"epochs_{epochs}", *more)
        totals.append(sum(seen))
    assert (totals[0] == totals[1]) == keeps


def test_optimizer_sees_the_head_alone(frozen: Frozen) -> None:
    groups = load(frozen.kept)["optimizer_states"][0]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == 2  # weight and bias


def test_features_are_never_taken_from_another_setting_or_other_images(photos: Path) -> None:
    def features(run: str, *more: str) -> set[str]:
        return {path.name for path in (fit(photos, run, *more) / "features").glob("*.npy")}

    first = features("one")
    assert first
    changes = ("--model.image_size=40", "--data.val_fraction=0.3", "--model.depth=34")
    for number, change in enumerate(changes):
        assert not first & features(f"other_{number}", change), change
    next((photos / "train/ant").iterdir()).unlink()
    assert not first & features("fewer")


@pytest.mark.parametrize("change", ["--data.augment=crop_flip", "--data.mixup=0.2"])
def test_augmented_and_mixed_images_are_computed_every_time(
    change: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(photos, "augmented", change)
    assert "computed every time" in capsys.readouterr().out
    assert [path.name.partition("-")[0] for path in (run / "features").glob("*.npy")] == ["val"]


@pytest.mark.parametrize(
    ("name", "build", "key"),
    [
        ("vgg16_bn", partial(VGG16, stem="imagenet"), "features.0.weight"),
        ("resnet18", partial(ResNet, stem="imagenet"), "layer4.1.conv2.weight"),
        ("inception_v3", partial(Inception, version="v3"), "Mixed_7c.branch_pool.conv.weight"),
    ],
)
def test_torchvision_weights_fill_the_backbone(
    name: str, build: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_weights(name)
    draw_no_weights(monkeypatch)
    classifier = build(5, weights="DEFAULT")
    assert torch.equal(classifier.network.backbone.state_dict()[key], state[key])
    assert classifier.network.head.state_dict() is not None
    theirs = models.get_model_weights(name)["DEFAULT"]
    assert classifier._weights_preprocessing == transfer._preprocessing_of(theirs, name)
    assert classifier._weights_preprocessing.size == (299 if name == "inception_v3" else 224)


class Doubled(Network):
    """Two layers that a file may hold as one tensor, and one layer that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        twice = nn.Linear(4, 4, bias=False)
        self.backbone = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            *(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), twice, twice),
        )
        self.head = nn.Linear(4, 2)


def test_memory_never_holds_a_networks_own_weights_beside_those_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, state = Doubled(), Doubled().state_dict()
    torch.save(state, tmp_path / "weights.pth")
    held = []

    def read(path: Path) -> dict[str, Any]:
        held.append(sum(one.untyped_storage().nbytes() for one in network.backbone.parameters()))
        return load_checkpoint(path)

    monkeypatch.setattr("cnn_lightning.classifiers.transfer.load_checkpoint", read)
    ImageClassifier(network, weights=str(tmp_path / "weights.pth"))
    assert held == [0]
    assert network.first_conv.weight.is_contiguous(memory_format=torch.channels_last)
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, state[f"backbone.{key}"]), key
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), key


def test_weights_keep_the_parameters_that_the_network_had(tmp_path: Path) -> None:
    network, state = Doubled(), Doubled().state_dict()
    shared = torch.rand(8, 4, dtype=torch.float64)
    # one tensor under two names, and half of a larger one
    state.update({"backbone.3.weight": shared[:4], "backbone.4.weight": shared[:4]})
    torch.save(state, tmp_path / "weights.pth")
    before = list(network.parameters())
    ImageClassifier(network, weights=str(tmp_path / "weights.pth"))
    assert all(one is other for one, other in zip(before, network.parameters(), strict=True))
    assert all(one.dtype == torch.float32 for one in before)
    first, second, third, fourth = network.backbone[3:]
    assert third is fourth
    assert torch.equal(first.weight, shared[:4].float())
    with torch.no_grad():
        first.weight.zero_()
    assert torch.equal(second.weight, shared[:4].float())


def test_one_tensor_under_two_names_fills_two_parameters(tmp_path: Path) -> None:
    network, state = Doubled(), Doubled().state_dict()
    state["backbone.4.weight"] = state["backbone.3.weight"]
    torch.save(state, tmp_path / "weights.pth")
    ImageClassifier(network, weights=str(tmp_path / "weights.pth"))
    with torch.no_grad():
        network.backbone[3].weight.zero_()
    assert torch.equal(network.backbone[4].weight, state["backbone.3.weight"])


def test_inception_prepares_images_as_torchvision_does() -> None:
    weights = models.get_model_weights("inception_v3")["DEFAULT"]
    prepared = transfer._preprocessing_of(weights, "inception_v3")
    images = torch.randint(256, (2, 3, 299, 299), dtype=torch.uint8)
    theirs = weights.transforms(resize_size=299, antialias=True)(images)
    scale, shift = torch.tensor([0.229, 0.224, 0.225]), torch.tensor([0.485, 0.456, 0.406])
    # what torchvision's network does first when `transform_input` is on, as it is with weights
    theirs = theirs * (scale / 0.5)[:, None, None] + ((shift - 0.5) / 0.5)[:, None, None]
    torch.testing.assert_close(prepared(images), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "weights", "size"),
    [
        ("vit_b_16", "DEFAULT", 224),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384),
        ("inception_v3", "DEFAULT", 299),
    ],
)
def test_the_name_of_a_file_tells_which_weights_it_holds(
    name: str, weights: str, size: int
) -> None:
    chosen = models.get_model_weights(name)[weights]
    path = Path(urllib.parse.urlparse(chosen.url).path)
    found = transfer._preprocessing_of_file(Path("mine") / path.name, Doubled(), name)
    assert found == transfer._preprocessing_of(chosen, name)
    assert found.size == size


def test_a_file_of_another_name_is_prepared_as_the_default_weights_are(
    narrow: None, tmp_path: Path
) -> None:
    torch.save(as_torchvision(ResNet(5, stem="imagenet")), tmp_path / "mine.pth")
    classifier = ResNet(5, stem="imagenet", weights=str(tmp_path / "mine.pth"))
    default = models.get_model_weights("resnet18")["DEFAULT"]
    expected = transfer._preprocessing_of(default, "resnet18")
    assert classifier._weights_preprocessing == expected
    inception = transfer._preprocessing_of_file(Path("mine.pth"), Doubled(), "inception_v3")
    assert inception.mean == (0.5, 0.5, 0.5)


def as_torchvision(classifier: ImageClassifier) -> dict[str, torch.Tensor]:
    """A residual network's weights under torchvision's names."""
    head = {f"fc.{key}": value for key, value in classifier.network.head.state_dict().items()}
    return {**classifier.network.backbone.state_dict(), **head}


def test_a_transformer_of_larger_images_goes_on_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = "torchvision.models.vision_transformer.EncoderBlock"
    monkeypatch.setattr(blocks, lambda *_: nn.Identity())
    path = tmp_path / transfer._file_name(models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1)
    torch.save(models.vit_b_16(image_size=384).state_dict(), path)
    argv = ["fit", "--data=ShapesDataModule", "--data.num_images=20", "--data.num_test=10"]
    argv += ["--model=TorchvisionClassifier", "--model.name=vit_b_16", f"--model.weights={path}"]
    argv += ["--data.batch_size=2", "--data.eval_batch_size=2", "--trainer.limit_val_batches=1"]
    argv += ["--trainer.enable_model_summary=false", "--trainer.limit_train_batches=1", *UNDRAWN]
    assert main([*argv, f"--log_dir={tmp_path}", "--run=a", "--trainer.max_epochs=1"]) == 0
    path.unlink()
    last = str(tmp_path / "a/version_0/checkpoints/last.ckpt")
    resumed = yaml.safe_load(read_start("fit", ["--ckpt_path", last]).arguments[1])
    assert resumed["model"]["init_args"]["image_size"] == 384
    assert TorchvisionClassifier.load_from_checkpoint(last).image_size == 384


@pytest.mark.parametrize("named", [True, False], ids=["name", "file"])
def test_a_transformer_is_built_for_the_images_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    blocks = "torchvision.models.vision_transformer.EncoderBlock"
    monkeypatch.setattr(blocks, lambda *_: nn.Identity())  # many numbers, whatever the size
    chosen = models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1
    path = Path(torch.hub.get_dir()) / "checkpoints" / transfer._file_name(chosen)
    path.parent.mkdir(parents=True)
    state = models.vit_b_16(image_size=384).state_dict()
    torch.save(state, path)
    weights = chosen.name if named else str(path)
    classifier = TorchvisionClassifier(3, name="vit_b_16", weights=weights)
    filled = classifier.network.state_dict()["backbone.encoder.pos_embedding"]
    assert torch.equal(filled, state["encoder.pos_embedding"])
    assert classifier.network.max_size == 384
    with pytest.raises(UserError, match="image_size of the weights"):
        TorchvisionClassifier(3, name="vit_b_16", weights=weights, image_size=224)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.net.", "state"])
def test_weights_that_a_wrapper_saved_are_found(narrow: None, tmp_path: Path, prefix: str) -> None:
    state = as_torchvision(ResNet(5, stem="imagenet"))
    wrapped: dict[str, Any] = {prefix + key: value for key, value in state.items()}
    if prefix == "state":
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    weights = str(tmp_path / "wrapped.pth")
    classifier = ResNet(5, stem="imagenet", weights=weights)
    assert torch.equal(
        classifier.network.backbone.state_dict()["conv1.weight"], state["conv1.weight"]
    )


def test_a_checkpoint_may_hold_more_than_its_network(
    narrow: None, frozen: Frozen, tmp_path: Path
) -> None:
    content = load(frozen.kept)
    content["state_dict"]["teacher.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "more.ckpt")
    classifier = ResNet(3, stem="imagenet", weights=str(tmp_path / "more.ckpt"))
    for key, value in classifier.network.backbone.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"network.backbone.{key}"])


def test_colours_are_summed_for_grey_images(narrow: None, tmp_path: Path) -> None:
    state = as_torchvision(ResNet(5, stem="imagenet"))
    torch.save(state, tmp_path / "colour.pth")
    classifier = ResNet(5, 1, stem="imagenet", weights=str(tmp_path / "colour.pth"))
    kernel = classifier.network.first_conv.weight
    assert torch.equal(kernel, state["conv1.weight"].sum(1, keepdim=True))


def test_missing_weights_name_the_file_and_where_to_put_it(narrow: None) -> None:
    with pytest.raises(UserError, match=r"resnet18 DEFAULT are not at .*resnet18-.*\.pth"):
        ResNet(5, stem="imagenet", weights="DEFAULT")


def test_unknown_weights_are_refused_with_those_there_are(narrow: None) -> None:
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        ResNet(5, stem="imagenet", weights="IMAGENET1K_V9")


def test_weights_of_another_network_are_refused_by_key(frozen: Frozen) -> None:
    with pytest.raises(UserError, match="backbone"):
        ResNet(5, depth=50, stem="imagenet", weights=str(frozen.pretrained))


def test_weights_bring_their_preparation_along(frozen: Frozen) -> None:
    stored = torch.load(frozen.pretrained, weights_only=True)["cnn_lightning"]["preprocessing"]
    again = load(frozen.kept)["cnn_lightning"]["preprocessing"]
    assert stored["mean"] == again["mean"]


def test_loading_a_checkpoint_does_not_ask_for_its_weights_again(
    narrow: None, frozen: Frozen
) -> None:
    path = frozen.kept / "checkpoints/best.ckpt"
    classifier = ResNet.load_from_checkpoint(path, weights_only=True)
    assert classifier.class_names == ("ant", "bee", "cow")
    assert main(["test", "--ckpt_path", str(path)]) == 0


def test_a_resumed_run_takes_its_own_features_and_asks_for_no_weights(
    narrow: None,
    frozen: Frozen,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("features were computed again")

    monkeypatch.setattr(FeatureCache, "_compute", refuse)
    photos = frozen.photos
    weights = str(photos.parent / "weights.ckpt")  # where nothing is any more
    run = Path(shutil.copytree(frozen.kept, photos.parent / "logs/frozen/version_0"))
    fit(photos, "frozen", "--ckpt_path", "last", "--trainer.max_epochs", "3", weights=weights)
    assert load(run)["epoch"] == 2
    assert "taking features" in capsys.readouterr().out
