"""What `fit` leaves in TensorBoard and in `figures/` about the inside of a network."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from compare import assert_same_checkpoint
from lightning.pytorch.loggers.logger import DummyLogger
from small import UNDRAWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_lightning import (
    ActivationStatistics,
    FeatureMaps,
    ImageDataModule,
    Kernels,
    LeNet,
    ShapesDataModule,
)
from cnn_lightning.analysis.health import measure_layers
from cnn_lightning.callbacks import EvaluationFigures, PredictionGrid
from cnn_lightning.callbacks.feature_maps import choose_examples
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.cli import main
from cnn_lightning.errors import UserError
from cnn_lightning.figures import Sheet
from cnn_lightning.figures import feature_maps as drawing
from cnn_lightning.loggers import EventFiles
from cnn_lightning.runs import RunFolder

RECIPE = """
data:
  class_path: MNISTDataModule
  init_args: {sample: true, batch_size: 512, augment: crop}
model: {class_path: LeNet, init_args: {activation: relu, dropout: 0.1, batch_norm: true}}
trainer: {max_epochs: 2, limit_train_batches: 2}
"""
LAST = Path("checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inside") / "inside.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    log_dir = recipe.parent / "logs"
    assert main(["fit", "--config", str(recipe), "--log_dir", str(log_dir)]) == 0
    return log_dir / "inside/version_0"


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_shows_all_there_is_to_see(events: EventAccumulator) -> None:
    tags = events.Tags()
    layers = [f"backbone.act{n}" for n in (1, 2, 3, 4)]
    assert {"feature_maps/backbone.conv1", "feature_maps/backbone.conv2"} <= set(tags["images"])
    assert {"kernels/backbone.conv1", "validation_predictions"} <= set(tags["images"])
    assert set(tags["histograms"]) == {f"activations/{layer}" for layer in layers}
    for what in ("mean", "std", "dead"):
        assert {f"activations/{what}/{layer}" for layer in layers} <= set(tags["scalars"])
    assert "activations/saturated/backbone.act1" not in tags["scalars"]
    assert {"gradient_norm/backbone.conv1", "gradient_norm/head"} <= set(tags["scalars"])
    assert {"train/loss", "val/accuracy", "lr"} <= set(tags["scalars"])
    assert tags["graph"]


def test_pictures_begin_with_the_untrained_network(events: EventAccumulator, run: Path) -> None:
    steps_per_epoch = events.Scalars("val/accuracy")[0].step + 1
    expected = [0, steps_per_epoch - 1, 2 * steps_per_epoch - 1]
    for tag in ("feature_maps/backbone.conv1", "kernels/backbone.conv1"):
        assert [event.step for event in events.Images(tag)] == expected
        files = sorted(path.name for path in (run / "figures" / tag).iterdir())
        assert files == ["epoch_000.png", "epoch_001.png", "epoch_002.png"]
        shown = [event.encoded_image_string for event in events.Images(tag)]
        assert len(set(shown)) == 3  # training changes what is seen


def test_hyperparameters_stand_beside_metrics(events: EventAccumulator) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    metadata = events.summary_metadata
    experiment = HParamsPluginData.FromString(
        metadata["_hparams_/experiment"].plugin_data.content
    ).experiment
    assert {info.name.tag for info in experiment.metric_infos} == {"val/accuracy", "val/loss"}
    start = HParamsPluginData.FromString(
        metadata["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info
    assert start.hparams["model/activation"].string_value == "relu"
    assert start.hparams["data/batch_size"].number_value == 512
    assert start.hparams["optimizer"].string_value == "torch.optim.SGD"
    assert start.hparams["trainer/max_epochs"].number_value == 2


def test_looking_changes_no_bit(recipe: Path, run: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(recipe), "--log_dir", str(tmp_path), *UNDRAWN]) == 0
    other = tmp_path / "inside/version_0"
    assert not (other / "figures/feature_maps").exists()
    assert "activations" not in (other / "metrics.csv").read_text()
    assert_same_checkpoint(run / LAST, other / LAST)


def test_statistics_are_those_of_the_network_on_validation_images(
    run: Path, events: EventAccumulator
) -> None:
    from cnn_lightning import MNISTDataModule

    classifier = LeNet.load_from_checkpoint(run / LAST)
    data = MNISTDataModule(sample=True, batch_size=512, augment="crop")
    classifier.adapt_to(data)
    images = data.prepare(data.load("train")[0][data.stage_indices("val")])
    layer = classifier.network.backbone.act2
    found = measure_layers(classifier.network, {"act2": layer}, [images])["act2"]
    for what, value in (("mean", found.mean), ("std", found.std), ("dead", found.dead)):
        logged = events.Scalars(f"activations/{what}/backbone.act2")[-1].value
        assert logged == pytest.approx(value, rel=1e-5), what


class Recorded:
    """Stands in for `draw_feature_maps` and keeps what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cnn_lightning.callbacks import feature_maps

        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.names: list[list[str]] = []
        monkeypatch.setattr(feature_maps, "draw_feature_maps", self)

    def __call__(
        self, images: torch.Tensor, maps: torch.Tensor, title: str, **kwargs: Any
    ) -> Sheet:
        self.calls.append((images, maps))
        self.names.append(kwargs["names"])
        return drawing.draw_feature_maps(images, maps, title, **kwargs)


def fit(
    classifier: ImageClassifier,
    callbacks: list[L.Callback],
    data: ImageDataModule | None = None,
    **kwargs: object,
) -> L.Trainer:
    trainer = L.Trainer(
        **{
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": callbacks,
            "accelerator": "cpu",
            **kwargs,
        }
    )
    L.seed_everything(1)
    shapes = ShapesDataModule(num_images=200, num_test=20, batch_size=64)
    trainer.fit(classifier, shapes if data is None else data)
    return trainer


def test_maps_are_the_layers_output_on_validation_images_as_the_network_sees_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = Recorded(monkeypatch)
    classifier = LeNet(num_classes=10, batch_norm=True)
    modes: list[bool] = []

    class Watch(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            modes.extend(module.training for module in pl_module.network.modules())

    trainer = fit(classifier, [FeatureMaps(layers="last"), Watch()])
    assert all(modes)  # the network trains on
    assert len(recorded.calls) == 2  # untrained, and after the epoch
    images, maps = recorded.calls[-1]
    data = trainer.datamodule
    raw, _ = choose_examples(trainer)
    val = data.load("train")[0][data.stage_indices("val")]
    assert all((image == val).all((1, 2, 3)).any() for image in raw)
    torch.testing.assert_close(images, raw, rtol=0, atol=0)
    classifier.eval()
    hidden = data.prepare(raw)
    for name, layer in classifier.network.backbone.named_children():
        hidden = layer(hidden)
        if name == "conv2":
            break
    torch.testing.assert_close(maps, hidden.detach(), rtol=0, atol=0)


@pytest.mark.parametrize(("image_size", "at_once"), [(None, 10), (160, 1)])
def test_no_more_is_in_memory_than_is_drawn_and_large_images_pass_one_by_one(
    image_size: int | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(monkeypatch)
    layers = torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    network = torch.nn.Sequential(*layers, torch.nn.Linear(5, 10))
    classifier = ImageClassifier(network, image_size=image_size)
    data = ShapesDataModule(num_images=200, num_test=20, batch_size=64)
    trainer = fit(classifier, [], data, max_steps=1, limit_val_batches=0)
    seen: list[int] = []
    layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    drawn = dict(FeatureMaps(layers="first", max_channels=2).draw(trainer, classifier, 1))
    assert set(seen) == {at_once}
    images, maps = recorded.calls[0]
    assert maps.shape[:2] == (len(images), 2)
    assert maps.shape[-1] == (30 if image_size is None else 110)  # as large as they are shown
    lines = [line for line, _ in drawn["backbone.0"].texts]
    size = (image_size or 32) - 2
    assert any(f"channels of {size}×{size}" in line for line in lines)
    assert any("5 channels" in line and "first 2 shown" in line for line in lines)


@pytest.mark.parametrize(("freeze", "at_once"), [(None, 20), ("backbone", 1)])
def test_statistics_of_a_frozen_backbone_take_no_more_images_at_once_than_its_pictures(
    freeze: str | None, at_once: int
) -> None:
    layers = torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
    network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(5, 10))
    classifier = ImageClassifier(network, image_size=160, freeze=freeze)
    data = ShapesDataModule(num_images=200, num_test=20, batch_size=64)
    trainer = fit(classifier, [], data, max_steps=1, limit_val_batches=0)
    seen: list[int] = []
    layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    found = ActivationStatistics()._measure(trainer, classifier, data)
    assert set(seen) == {at_once}
    assert found["backbone.1"].count == 20 * 5 * 158 * 158


def test_images_of_four_channels_are_shown(tmp_path: Path) -> None:
    class Infrared(ImageDataModule):
        class_names = ("dark", "bright")
        image_shape = (4, 32, 32)
        mean = std = (0.5,) * 4

        def read(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
            labels = torch.arange(40) % 2
            images = (100 * labels).to(torch.uint8)[:, None, None, None]
            return images.expand(40, 4, 32, 32).contiguous(), labels

    folder = RunFolder(tmp_path / "run/version_0")
    data, classifier = Infrared(), LeNet(num_classes=2, in_channels=4)
    looking = [FeatureMaps(), PredictionGrid(folder), EvaluationFigures(folder)]
    fit(classifier, looking, data).test(classifier, data, verbose=False)
    assert {"validation_predictions.png", "test_worst_mistakes.png"} <= {
        path.name for path in folder.figures.iterdir()
    }


def test_kernels_are_in_colour_where_they_see_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(ImageClassifier):
        def __init__(self) -> None:
            convolutions = torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 2, 3)
            flat = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
            super().__init__(torch.nn.Sequential(*convolutions, *flat, torch.nn.Linear(2, 10)))

    drawn: list[bool] = []

    def draw(*args: object, sees_image: bool, **kwargs: object) -> Sheet:
        drawn.append(sees_image)
        return Sheet(1, 1)

    monkeypatch.setattr("cnn_lightning.callbacks.kernels.draw_kernels", draw)
    list(Kernels(layers="all").draw(L.Trainer(logger=False, accelerator="cpu"), Narrow(), 0))
    assert drawn == [True, False]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_hook_comes_off_in_any_precision(precision: str) -> None:
    classifier = LeNet(num_classes=10, activation="tanh")
    looking = [FeatureMaps(), Kernels(), ActivationStatistics()]
    trainer = fit(classifier, looking, precision=precision)
    hooks = [len(m._forward_hooks) for m in classifier.modules()]
    assert sum(hooks) == 0
    assert trainer.global_step == 3


def test_a_compiled_classifier_is_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    classifier = LeNet(num_classes=10)
    classifier.network.compile(backend="eager")
    fit(classifier, [FeatureMaps(layers="first")])
    assert len(recorded.calls) == 2
    assert not torch.equal(recorded.calls[0][1], recorded.calls[1][1])


def test_a_pattern_that_matches_nothing_ends_before_training() -> None:
    with pytest.raises(UserError, match=r"features\.\*") as caught:
        fit(LeNet(num_classes=10), [FeatureMaps(layers="features.*")])
    assert "backbone.conv1" in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (FeatureMaps, "max_channels"),
        (Kernels, "max_kernels"),
        (ActivationStatistics, "max_images"),
    ],
)
def test_numbers_that_show_nothing_are_refused(kind: Any, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is 0\n  give at least 1"):
        kind(**{name: 0})
    with pytest.raises(UserError, match="every_n_epochs is -1"):
        kind(every_n_epochs=-1)


def test_a_layer_without_maps_is_refused() -> None:
    with pytest.raises(UserError, match="no maps to draw"):
        fit(LeNet(num_classes=10), [FeatureMaps(layers="Linear")])


def test_named_files_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "red.png")
    recorded = Recorded(monkeypatch)
    name = str(tmp_path / "red.png")
    fit(LeNet(num_classes=10), [FeatureMaps(images=[name]), FeatureMaps(images=name)])
    assert len(recorded.calls) == 8  # before and after, of two layers each
    for (images, _), names in zip(recorded.calls, recorded.names, strict=True):
        assert images.shape == (1, 3, 32, 32)
        assert (images[0, 0] == 255).all()
        assert names == ["red"]


@pytest.mark.parametrize(("every", "expected"), [("null", [0, 1, 2, 4, 5]), ("3", [0, 3, 5])])
def test_pictures_grow_rarer_unless_told_otherwise(
    every: str, expected: list[int], tmp_path: Path
) -> None:
    recipe = tmp_path / "short.yaml"
    recipe.write_text(RECIPE)
    options = [*UNDRAWN, "--trainer.max_epochs=5", "--trainer.limit_train_batches=1"]
    options += ["--trainer.limit_val_batches=1", "--feature_maps.layers=first"]
    options += [f"--feature_maps.every_n_epochs={every}"]
    assert main(["fit", "--config", str(recipe), "--log_dir", str(tmp_path), *options]) == 0
    pictures = tmp_path / "short/version_0/figures/feature_maps/backbone.conv1"
    assert sorted(path.name for path in pictures.iterdir()) == [
        f"epoch_{epoch:03}.png" for epoch in expected
    ]


def test_a_frozen_backbone_is_looked_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "frozen.yaml"
    recipe.write_text(RECIPE.replace("dropout: 0.1", "freeze: backbone"))
    assert main(["fit", "--config", str(recipe), "--log_dir", str(tmp_path)]) == 0
    run = tmp_path / "frozen/version_0"
    pictures = sorted(path.name for path in (run / "figures/feature_maps/backbone.conv1").iterdir())
    assert pictures == ["epoch_000.png"]
    events = EventAccumulator(str(run))
    events.Reload()
    assert len(events.Scalars("activations/mean/backbone.act1")) == 1
    assert len(events.Scalars("gradient_norm/head")) == 2


class Remember(DummyLogger):
    """Where statistics were logged, and the gradient of the head at each of the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.gradients: dict[int, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if "activations/mean/backbone.act1" in metrics:
            self.steps.append(step)
        if "gradient_norm/head" in metrics:
            self.gradients[step] = metrics["gradient_norm/head"]


@pytest.mark.parametrize("cut_off", [False, True], ids=["whole epochs", "max_steps"])
def test_gradient_norm_is_that_of_the_last_step(cut_off: bool) -> None:
    statistics = ActivationStatistics()
    norms: list[float] = []

    class Watch(L.Callback):
        def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            head = pl_module.network.head
            gradient = torch.cat([head.weight.grad.flatten(), head.bias.grad])
            norms.append(float(gradient.norm()))

    logger = Remember()
    steps = {"max_steps": 7} if cut_off else {"max_epochs": 2}
    fit(LeNet(num_classes=10), [statistics, Watch()], logger=logger, **{"max_epochs": 9, **steps})
    last = [2, 5, 6] if cut_off else [2, 5]
    assert len(norms) == last[-1] + 1
    assert logger.gradients == {step: pytest.approx(norms[step], rel=1e-6) for step in last}


def test_an_epoch_that_time_cuts_off_has_no_gradient_norm() -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            trainer.should_stop = trainer.global_step == 5

    logger = Remember()
    fit(LeNet(num_classes=10), [ActivationStatistics(), Stop()], logger=logger, max_epochs=9)
    assert sorted(logger.gradients) == [2]
    assert logger.steps[-1] == 4  # where the rest was measured


def test_event_files_of_a_resumed_run_repeat_neither_graph_nor_hyperparameters(
    tmp_path: Path,
) -> None:
    from cnn_lightning.runs import RunFolder

    logger = EventFiles(RunFolder(tmp_path / "run/version_0"), resumed_at=5)
    logger.log_settings({"lr": 0.1})
    logger.log_graph(LeNet(num_classes=10))
    logger.save()
    assert not list(tmp_path.rglob("events*"))
