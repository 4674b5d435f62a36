"""Any classification network of torchvision, cut into backbone and head."""

import difflib
from collections import OrderedDict
from typing import cast

import torchvision
from torch import nn
from torchvision.models import MaxVit, SqueezeNet, VisionTransformer
from typing_extensions import override

from cnn_lightning.errors import UserError
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import use_no_inplace

# these have auxiliary heads, which we train as the papers do
_OURS = {
    "googlenet": "class_path: Inception, version: googlenet",
    "inception_v3": "class_path: Inception, version: v3",
}


class TorchvisionNetwork(Network):
    """A torchvision network by its name, with a new head.

    The head is its last linear layer. SqueezeNet has none: its backbone gives N×512×H×W, and its
    head is dropout, a 1×1 convolution, ReLU and the mean over the image. Activations are not in
    place. The residual blocks of torchvision (`resnet…`, `resnext…`, `wide_resnet…`) call one ReLU
    at two or three places; `ResidualNetwork` has one for each.

    Args:
        name: As `torchvision.models.list_models()` gives it.
        num_classes: Classes to tell apart, K.
        in_channels: Colour channels of an image.
        image_size: Side of the images in pixels, of a vision transformer (`vit_…`) alone, whose
            position codes fix it; `None` is torchvision's.

    Raises:
        UserError: torchvision has no classification network of this name, or `image_size` is not
            a whole number of a transformer's patches.
    """

    def __init__(
        self, name: str, num_classes: int, in_channels: int = 3, *, image_size: int | None = None
    ) -> None:
        super().__init__()
        known = torchvision.models.list_models(module=torchvision.models)
        if name in _OURS:
            raise UserError(f"{name} is a network of our own", f"use {_OURS[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
            raise UserError(
                f"torchvision has no classification network {name!r}",
                f"perhaps {', '.join(near)}" if near else "see torchvision.models.list_models()",
            )
        self.name = name
        model = _build(name, image_size)
        facts = torchvision.models.get_model_weights(name)["DEFAULT"]
        self.min_size = max(facts.meta["min_size"])
        self.default_size = int(facts.transforms().crop_size[0])
        if isinstance(model, VisionTransformer):
            self.default_size = model.image_size  # its newest weights may be for a larger one
        if isinstance(model, VisionTransformer | MaxVit):
            self.min_size = self.max_size = self.default_size  # position codes have a fixed size
        self._head_name = _split(self, model, num_classes)
        _give_channels(self, in_channels)
        use_no_inplace(self)

    @property
    @override
    def title(self) -> str:
        return self.name

    @override
    def rename_torchvision_key(self, key: str) -> str:
        if key.startswith(f"{self._head_name}."):
            suffix = key.removeprefix(f"{self._head_name}.")
            return f"head.1.{suffix}" if isinstance(self.head, nn.Sequential) else f"head.{suffix}"
        return f"backbone.{key}"


def _build(name: str, image_size: int | None) -> nn.Module:
    more = {}
    if name.startswith("vit_") and image_size is not None:
        patch = int(name.rpartition("_")[2])
        if image_size < patch or image_size % patch:
            raise UserError(
                f"{name} cannot take images of {image_size}×{image_size} pixels",
                f"give a multiple of {patch} as image_size",
            )
        more["image_size"] = image_size
    return cast(nn.Module, torchvision.models.get_model(name, weights=None, **more))


def _split(network: TorchvisionNetwork, model: nn.Module, num_classes: int) -> str:
    """Set backbone and head; the name that the head's layer had."""
    if isinstance(model, SqueezeNet):
        network.backbone = nn.Sequential(OrderedDict(features=model.features))
        network.num_features = 512
        network.head = nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv2d(512, num_classes, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        return "classifier.1"
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    old = cast(nn.Linear, model.get_submodule(linear[-1]))
    model.set_submodule(linear[-1], nn.Identity())
    network.backbone = model
    network.num_features = old.in_features
    # MaxViT's last layer has no bias
    network.head = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    return str(linear[-1])


def _give_channels(network: TorchvisionNetwork, in_channels: int) -> None:
    old = network.first_conv
    if old is None or old.in_channels == in_channels:
        return
    name = next(name for name, module in network.named_modules() if module is old)
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # a pair
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    network.set_submodule(name, new)
