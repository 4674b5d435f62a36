"""What the README says of own networks, own data and searches, done word by word."""

import contextlib
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import readme
import torch
import yaml
from small import UNDRAWN
from torch import nn

from cnn_lightning import ImageClassifier, ImageDataModule, ShapesDataModule
from cnn_lightning.cli import main
from cnn_lightning.data.base import Split
from cnn_lightning.errors import UserError
from cnn_lightning.networks.sequential import SequentialNetwork, as_network

# nothing here looks at the pictures
QUICK = {"fit": UNDRAWN, "inspect": ["--layers", "first", "--num_images", "1"]}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the README's files alone."""
    for name, text in readme.files().items():
        (tmp_path / name).write_text(text)
    before = set(sys.modules)
    with contextlib.chdir(tmp_path):
        yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("mine", "sweep"):
            del sys.modules[name]


def commands_with(*parts: str) -> list[str]:
    return [c for c in readme.commands() if any(part in c for part in parts)]


def test_examples_are_short() -> None:
    of_mine = [block for block in readme.blocks() if block.text.startswith("# mine.")]
    assert len(of_mine) == 3
    assert all(len(block.text.splitlines()) < 20 for block in of_mine)


def test_own_network_and_data_work_as_the_readme_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []
    for command in commands_with("mine.yaml", "--run mine"):
        argv = readme.ours(command)
        assert argv is not None
        assert main([*argv, *QUICK.get(argv[0], [])]) == 0, f"{command}: {capsys.readouterr().err}"
        done.append(argv[0])
    assert done == ["show", "fit", "fit", "test", "predict", "inspect"]
    run = folder / "logs/mine/version_0"
    assert [path.name for path in (folder / "logs/mine").iterdir()] == ["version_0"]
    assert (run / "config-resume-1.yaml").is_file()
    known = yaml.safe_load((run / "config.yaml").read_text())
    assert known["model"]["init_args"]["width"] == 32
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 7
    assert last["state_dict"]["network.head.weight"].shape == (10, 256)
    lines = (run / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 297
    rows = (run / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("test/accuracy")
    # digits of 64 pixels are easy: a network that learns nothing has 0.1
    assert max(float(row.split(",")[place] or 0) for row in rows[1:]) > 0.8


def test_a_network_without_convolutions_is_one_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = "nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes)"
    mine = (folder / "mine.py").read_text()
    before, after = mine.index("nn.Sequential("), mine.index("        super().__init__(network")
    (folder / "mine.py").write_text(f"{mine[:before]}nn.Sequential({layers})\n{mine[after:]}")
    known = ["--config", "mine.yaml", "--allow_modules", "mine"]
    brief = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1"]
    assert main(["fit", *known, *brief]) == 0
    out = capsys.readouterr().out
    assert "no feature maps are drawn: SequentialNetwork has no convolutions" in out
    assert "no kernels are drawn" in out
    weights = "--model.weights=logs/mine/version_0/checkpoints/last.ckpt"
    assert main(["fit", *known, *brief, weights, "--model.freeze=backbone"]) == 0
    assert main(["tune", *known, "--batch_size", "--max_batch_size=32"]) == 0
    assert "batch size 32" in capsys.readouterr().out
    assert main(["inspect", "last", "--run", "mine", "--allow_modules", "mine"]) == 2
    assert "Grad-CAM: SequentialNetwork has no convolutions" in capsys.readouterr().err


def test_search_of_the_readme_makes_two_trials(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import optuna

    shutil.copytree(readme.README.parent / "configs", folder / "configs")
    config = folder / "configs/quickstart.yaml"
    undrawn = [f"{flag[2:].partition('.')[0]}: {{every_n_epochs: 0}}" for flag in UNDRAWN]
    brief = "\n".join(["max_epochs: 1", "  limit_train_batches: 5", *undrawn])
    config.write_text(config.read_text().replace("max_epochs: 10", brief))
    assert brief in config.read_text()
    command, compared = commands_with("sweep.py", "sweep_")
    program, name, _ = shlex.split(command)
    assert program == "python"
    monkeypatch.setattr(sys, "argv", [name, "2"])
    runpy.run_path(name, run_name="__main__")
    study = optuna.load_study(study_name="sweep", storage="sqlite:///sweep.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    for trial in study.trials:
        run = folder / f"logs/sweep_{trial.number}/version_0"
        settings = yaml.safe_load((run / "config.yaml").read_text())
        assert settings["optimizer"]["init_args"]["lr"] == trial.params["lr"]
        assert settings["model"]["init_args"]["activation"] == trial.params["activation"]
        rows = [row.split(",") for row in (run / "metrics.csv").read_text().splitlines()]
        place = rows[0].index("val/accuracy")
        assert trial.value == max(float(row[place]) for row in rows[1:] if row[place])
    assert capsys.readouterr().out.rstrip().endswith(f"{study.best_value} {study.best_params}")
    assert main(readme.ours(compared) or []) == 0


class Tiny(ImageClassifier):
    def __init__(self, num_classes: int, *, outputs: int | None = None) -> None:
        pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs or num_classes))
        super().__init__(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), *pooled))


def test_sequence_is_cut_at_its_last_layer_with_weights() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 7, 1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip
    images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    wanted = layers(images)
    network = SequentialNetwork(layers)
    torch.testing.assert_close(network(images), wanted, rtol=0, atol=0)
    assert (len(network.backbone), len(network.head), network.num_features) == (2, 3, 4)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_frozen_backbone_of_an_own_network_leaves_its_last_layer_to_train() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                            nn.Linear(4, 2))  # fmt: skip
    classifier = ImageClassifier(network, freeze="backbone")
    trained = {name for name, p in classifier.named_parameters() if p.requires_grad}
    assert trained == {"network.head.weight", "network.head.bias"}


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (nn.Linear(3, 2), "does not say which part of it is the head"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "1 layers with weights"),
        (nn.Sequential(), "0 layers with weights"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2), nn.Softmax(1)), "ends with a softmax"),
    ],
)
def test_network_that_cannot_be_cut_is_refused(network: nn.Module, told: str) -> None:
    with pytest.raises(UserError, match=told):
        as_network(network)


def test_network_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match="gives 3 logits, the data holds 10 classes"):
        Tiny(10, outputs=3).adapt_to(ShapesDataModule(num_images=20))
    Tiny(10).adapt_to(ShapesDataModule(num_images=20))


class Given(ImageDataModule):
    """Gives what it is told to."""

    class_names = ("a", "b")
    image_shape = (1, 8, 8)
    mean, std = (0.5,), (0.5,)

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.given = images, labels

    def read(self, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        return self.given


IMAGES, LABELS = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (IMAGES.float(), LABELS, "images .4, 1, 8, 8. of torch.float32"),
        (IMAGES[:, 0], LABELS, "images .4, 8, 8. of torch.uint8"),
        (IMAGES, LABELS[:3], "4 images, and labels .3,. of torch.int64"),
        (IMAGES, LABELS.int(), "of torch.int32"),
        (IMAGES, LABELS + 1, "labels 1 to 2 for 2 classes"),
        (IMAGES, LABELS - 1, "labels -1 to 0 for 2 classes"),
    ],
)
def test_own_data_of_another_form_is_refused(
    images: torch.Tensor, labels: torch.Tensor, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        Given(images, labels).load("train")
    Given(IMAGES, LABELS).load("train")


class FromNumpy(Given):
    """States what it is by numpy's means, and is given its images and a folder."""

    class_names = tuple(np.array(["a", "b"]))
    image_shape = tuple(np.array([1, 8, 8]))
    mean, std = np.array([0.5]), tuple(torch.tensor([0.25]))

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, folder: Path, side: Any) -> None:
        super().__init__(images, labels)


class Wide(ImageClassifier):
    def __init__(self, num_classes: int, *, width: int, first: nn.Module) -> None:
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
        super().__init__(nn.Sequential(first, nn.ReLU(), *head))


def test_a_checkpoint_is_read_whatever_numbers_and_arguments_it_was_made_with(
    tmp_path: Path,
) -> None:
    first, width = nn.Conv2d(1, 4, 3), np.int64(4)
    data = FromNumpy(IMAGES.repeat(5, 1, 1, 1), LABELS.repeat(5), tmp_path, np.int64(8))
    classifier = Wide(2, width=width, first=first)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(classifier, data)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    content = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert content["hyper_parameters"]["width"] == 4
    given = content["datamodule_hyper_parameters"]
    assert given == {"labels": 5 * [0, 1, 0, 1], "folder": str(tmp_path), "side": 8}
    with pytest.raises(TypeError, match="first"):
        Wide.load_from_checkpoint(tmp_path / "own.ckpt")
    again = Wide.load_from_checkpoint(tmp_path / "own.ckpt", first=nn.Conv2d(1, 4, 3))
    assert again.class_names == ("a", "b")
    assert again.image_shape == (1, 8, 8)
    assert again.preprocessing is not None
    assert (again.preprocessing.mean, again.preprocessing.std) == ((0.5,), (0.25,))
    for name, value in classifier.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_class_names_that_are_no_texts_are_refused() -> None:
    data = Given(IMAGES, LABELS)
    data.class_names = np.arange(2)  # type: ignore[assignment]
    with pytest.raises(UserError, match="class_names of Given are not all texts"):
        data.setup("fit")


def test_data_that_does_not_state_its_facts_is_refused() -> None:
    class Bare(ImageDataModule):
        def read(self, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
            raise NotImplementedError

    with pytest.raises(UserError, match="Bare does not state its class_names, image_shape, mean"):
        _ = Bare().num_classes
