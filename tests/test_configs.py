"""Every recipe trains, and replays from its own saved config to the same bits."""

from pathlib import Path

import pytest
import torch
import yaml
from compare import assert_same_checkpoint
from make_data import make_cifar10, make_folder, make_mnist
from small import UNDRAWN, make_weights_of, small_arguments

from cnn_lightning.cli import main
from cnn_lightning.data import CIFAR10DataModule

CONFIGS = Path(__file__).parents[1] / "configs"
LAST = Path("checkpoints/last.ckpt")
RECIPES = sorted(CONFIGS.glob("*.yaml"))
# many seconds a run even in small; tests/test_determinism.py runs every network twice
LARGE = (
    "cifar10_googlenet",
    "cifar10_inception_v3_head",
    "cifar10_resnet18_finetune",
    "cifar10_resnet50_head",
    "cifar10_speedrun",
    "cifar10_vgg16",
    "cifar10_vgg16_head",
    "shapes_resnet18",
)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_mnist(root)
    make_mnist(root, variant="fashion")
    make_folder(root / "photos")
    return root


@pytest.fixture
def cifar10(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10DataModule, "files", make_cifar10(small_data, 4))


def fit(config: Path, data: Path, log_dir: Path, *more: str) -> Path:
    arguments = ["fit", "--config", str(config), "--log_dir", str(log_dir)]
    arguments += small_arguments(config, data, max_steps=2, batch_size=4)
    assert main([*arguments, *more]) == 0
    (run,) = (
        (log_dir / config.stem).glob("version_*")
        if config.parent == CONFIGS
        else list(log_dir.glob("*/version_*"))
    )
    return run


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 14


def replay(run: Path, data: Path, log_dir: Path) -> None:
    again = fit(run / "config.yaml", data, log_dir, *UNDRAWN)
    assert_same_checkpoint(run / LAST, again / LAST)


@pytest.mark.usefixtures("cifar10")
@pytest.mark.parametrize("config", RECIPES, ids=lambda path: path.stem)
def test_recipe_trains_and_replays_to_the_same_bits(
    config: Path, small_data: Path, tmp_path: Path
) -> None:
    make_weights_of(config)
    run = fit(config, small_data, tmp_path / "first")
    for name in (
        "config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics.csv",
        "figures/validation_predictions.png",
    ):
        assert (run / name).is_file(), name
    assert list(run.glob("events.out.tfevents.*"))
    if config.stem not in LARGE:
        replay(run, small_data, tmp_path / "again")


@pytest.mark.slow
@pytest.mark.usefixtures("cifar10")
@pytest.mark.parametrize("name", LARGE)
def test_large_recipe_replays_to_the_same_bits(name: str, small_data: Path, tmp_path: Path) -> None:
    config = CONFIGS / f"{name}.yaml"
    make_weights_of(config)
    run = fit(config, small_data, tmp_path / "first", *UNDRAWN)
    replay(run, small_data, tmp_path / "again")


@pytest.mark.parametrize("overlay", sorted((CONFIGS / "with").glob("*.yaml")), ids=lambda p: p.stem)
def test_overlay_fits_a_recipe(overlay: Path, tmp_path: Path) -> None:
    if "gpu" in overlay.stem and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    fit(CONFIGS / "quickstart.yaml", tmp_path, tmp_path / "logs", "--config", str(overlay))


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("tanh", {"activation": "tanh"}),
        ("batch_norm", {"batch_norm": True}),
        ("dropout", {"dropout": 0.5}),
    ],
)
def test_recipes_of_the_study_differ_in_one_thing(name: str, difference: dict[str, object]) -> None:
    base, other = (
        yaml.safe_load((CONFIGS / f"cifar10_lenet_{kind}.yaml").read_text())
        for kind in ("relu", name)
    )
    base["model"]["init_args"] |= difference
    assert base == other
