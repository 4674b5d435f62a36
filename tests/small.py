"""A recipe in small: seconds on a CPU, with data of `make_data`."""

from pathlib import Path

import pytest
import yaml
from make_data import make_weights
from torch import nn

from cnn_lightning.networks import googlenet, resnet, vgg

# the large networks at small sizes
SMALL_SIZES = {"VGG16": 32, "ResNet": 32, "Inception": 75}
# for a test that looks at no picture
UNDRAWN = [
    f"--{key}.every_n_epochs=0" for key in ("feature_maps", "kernels", "activation_statistics")
]


def small_arguments(
    config: Path, data: Path, *, max_steps: int = 3, batch_size: int = 8
) -> list[str]:
    """Flags for `fit` that make a few small steps of a recipe; `data` holds all data sets."""
    content = yaml.safe_load(config.read_text())
    model = content["model"]
    spec = model if isinstance(model, dict) else {"class_path": model, "init_args": {}}
    name, init_args = spec["class_path"].rpartition(".")[2], spec.get("init_args") or {}
    root = data / "photos" if "Folder" in str(content["data"]) else data
    arguments = [f"--trainer.max_steps={max_steps}", f"--trainer.val_check_interval={max_steps}"]
    arguments += ["--data.root", str(root)]
    arguments += [f"--data.batch_size={batch_size}", f"--data.eval_batch_size={2 * batch_size}"]
    if init_args.get("weights") and init_args.get("stem", "imagenet") == "imagenet":
        arguments.append(f"--model.image_size={SMALL_SIZES[name]}")
    if "Shapes" in str(content["data"]):
        arguments += ["--data.num_images=40", "--data.num_test=20"]
    return arguments


def make_weights_of(config: Path) -> None:
    """Make random weights where a recipe looks for pretrained ones, if it does."""
    if "weights: DEFAULT" not in config.read_text():
        return
    names = {"vgg16_head": "vgg16_bn", "resnet50": "resnet50", "inception": "inception_v3"}
    name = next((name for part, name in names.items() if part in config.stem), "resnet18")
    make_weights(name, repeated=True)


def narrow_networks(patch: pytest.MonkeyPatch) -> None:
    """Let the large networks have few layers, of every kind, and those few channels."""
    patch.setattr(resnet, "_WIDTHS", (8, 8, 16, 16))
    for depth, blocks in ((18, (1, 1, 1, 1)), (34, (1, 1, 1, 2))):
        patch.setitem(resnet._STAGES, depth, (blocks, False))
    patch.setattr(vgg, "_LAYERS", (8, 0, 8, 0, 16, 0, 16, 0, 512, 0))
    # that before the first shrinking, those that the auxiliary heads see, and the last
    kept = ("inception3b", "inception4a", "inception4d", "inception5b")
    patch.setattr(googlenet, "_BLOCKS", {name: googlenet._BLOCKS[name] for name in kept})


def draw_no_weights(patch: pytest.MonkeyPatch) -> None:
    """Leave new layers as the memory was, for a test that fills them itself."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
