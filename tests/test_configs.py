"""Every recipe trains, and replays from its own saved config to the same bits."""

import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from compare import assert_same_checkpoint
from make_data import make_cifar10, make_folder, make_mnist
from torchvision import models

from cnn_lightning.cli import main
from cnn_lightning.data import CIFAR10DataModule

CONFIGS = Path(__file__).parents[1] / "configs"
LAST = Path("checkpoints/last.ckpt")
RECIPES = sorted(CONFIGS.glob("*.yaml"))
# the large networks at small sizes, so that three steps take seconds on a CPU
SMALL_SIZES = {"VGG16": 32, "ResNet": 32, "Inception": 75}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_mnist(root)
    make_mnist(root, variant="fashion")
    make_folder(root / "photos")
    return root


@pytest.fixture
def cifar10(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10DataModule, "files", make_cifar10(small_data))


def weights_file(name: str) -> Path:
    """Make a file of random weights where torchvision looks for the real one."""
    url = models.get_model_weights(name)["DEFAULT"].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(url).path).name
    path.parent.mkdir(parents=True, exist_ok=True)
    network = models.get_model(name, weights=None, **extra(name))
    torch.save(network.state_dict(), path)
    return path


def extra(name: str) -> dict[str, Any]:
    return {"init_weights": False} if name in ("inception_v3", "googlenet") else {}


def fit(config: Path, data: Path, log_dir: Path, *more: str) -> Path:
    content = yaml.safe_load(config.read_text())
    model = content["model"]
    spec = model if isinstance(model, dict) else {"class_path": model, "init_args": {}}
    name, init_args = spec["class_path"].rpartition(".")[2], spec.get("init_args") or {}
    root = data / "photos" if "Folder" in str(content["data"]) else data
    arguments = ["fit", "--config", str(config), "--log_dir", str(log_dir)]
    arguments += [
        "--trainer.max_steps=3",
        "--trainer.val_check_interval=3",
        "--data.root",
        str(root),
    ]
    arguments += ["--data.batch_size=8", "--data.eval_batch_size=16"]
    if init_args.get("weights") and init_args.get("stem", "imagenet") == "imagenet":
        arguments.append(f"--model.image_size={SMALL_SIZES[name]}")
    if "Shapes" in str(content["data"]):
        arguments += ["--data.num_images=100", "--data.num_test=20"]
    assert main([*arguments, *more]) == 0
    (run,) = (
        (log_dir / config.stem).glob("version_*")
        if config.parent == CONFIGS
        else list(log_dir.glob("*/version_*"))
    )
    return run


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 14


@pytest.mark.usefixtures("cifar10")
@pytest.mark.parametrize("config", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_and_replays(config: Path, small_data: Path, tmp_path: Path) -> None:
    if "vgg16_head" in config.stem:
        weights_file("vgg16_bn")
    elif "resnet50" in config.stem:
        weights_file("resnet50")
    elif "inception" in config.stem:
        weights_file("inception_v3")
    elif "weights: DEFAULT" in config.read_text():
        weights_file("resnet18")
    run = fit(config, small_data, tmp_path / "first")
    for name in ("config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv"):
        assert (run / name).is_file(), name
    again = fit(run / "config.yaml", small_data, tmp_path / "again")
    assert_same_checkpoint(run / LAST, again / LAST)


@pytest.mark.parametrize("overlay", sorted((CONFIGS / "with").glob("*.yaml")), ids=lambda p: p.stem)
def test_overlay_fits_a_recipe(overlay: Path, tmp_path: Path) -> None:
    if "gpu" in overlay.stem and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    fit(CONFIGS / "quickstart.yaml", tmp_path, tmp_path / "logs", "--config", str(overlay))
