"""One contract for all networks, and each against torchvision or the number of a paper."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from cnn_lightning import networks
from cnn_lightning.errors import UserError
from cnn_lightning.networks import (
    VGG,
    GoogLeNet,
    InceptionV3,
    LeNet5,
    Network,
    ResidualNetwork,
    TorchvisionNetwork,
)

# a row per class: how to build it small, and an image size it takes
ROWS: dict[str, tuple[Callable[[int, int], Network], int]] = {
    "LeNet5": (lambda k, c: LeNet5(k, c), 28),
    "VGG": (lambda k, c: VGG(k, c), 32),
    "ResidualNetwork": (lambda k, c: ResidualNetwork(k, c), 32),
    "GoogLeNet": (lambda k, c: GoogLeNet(k, c, stem="small"), 32),
    "InceptionV3": (lambda k, c: InceptionV3(k, c), 75),
    "TorchvisionNetwork": (lambda k, c: TorchvisionNetwork("squeezenet1_1", k, c), 64),
}
EVERY = pytest.mark.parametrize("name", ROWS)


def build(name: str, num_classes: int = 7, channels: int = 3) -> tuple[Network, torch.Tensor]:
    make, size = ROWS[name]
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    return make(num_classes, channels), images


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_network_has_a_row() -> None:
    found = {
        name
        for name in networks.__all__
        if issubclass(getattr(networks, name), Network) and name != "Network"
    }
    assert found == set(ROWS)


@EVERY
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("training", [False, True])
def test_logits_in_both_modes(name: str, channels: int, training: bool) -> None:
    network, images = build(name, channels=channels)
    logits = network.train(training)(images)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 7)
    assert network.first_conv.in_channels == channels


@EVERY
def test_forward_is_head_after_backbone(name: str) -> None:
    network, images = build(name)
    network.eval()
    assert torch.equal(network(images), network.head(network.backbone(images)))


@EVERY
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network, images = build(name)
    network.train()
    logits, auxiliary = network.auxiliary_logits(images)
    assert bool(auxiliary) == bool(network.auxiliary_weight)
    sum(part.square().sum() for part in [logits, *auxiliary]).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@EVERY
def test_too_small_an_image_is_refused(name: str) -> None:
    network, images = build(name)
    small = images[:, :, : network.min_size - 1, : network.min_size - 1]
    with pytest.raises(UserError, match=f"least it can take is {network.min_size}"):
        network.eval()(small)


@EVERY
def test_activations_are_not_in_place_and_not_used_twice(name: str) -> None:
    network, images = build(name)
    calls: Counter[str] = Counter()
    for path, module in network.named_modules():
        assert not getattr(module, "inplace", False), path
        if isinstance(module, (nn.ReLU, nn.Tanh)):
            module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    network.eval()(images)
    assert calls
    assert set(calls.values()) == {1}


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (LeNet5(10, 1), 61_706),  # LeCun et al. 1998 with a full second convolution
        (ResidualNetwork(10), 11_173_962),  # pytorch-cifar
        (VGG(10), 14_728_266),  # pytorch-cifar
        (ResidualNetwork(1000, depth=50, stem="imagenet"), 25_557_032),  # torchvision
        (VGG(1000, stem="imagenet"), 138_365_992),
        (InceptionV3(1000), 27_161_264),
        (GoogLeNet(1000, auxiliary=False), 6_624_904),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_parameter_count(network: Network, parameters: int) -> None:
    assert count(network) == parameters


@pytest.mark.parametrize(
    ("name", "ours", "size"),
    [
        ("resnet18", ResidualNetwork(1000, depth=18, stem="imagenet"), 64),
        ("resnet50", ResidualNetwork(1000, depth=50, stem="imagenet"), 64),
        ("vgg16_bn", VGG(1000, stem="imagenet"), 64),
        ("inception_v3", InceptionV3(1000), 80),
        ("googlenet", GoogLeNet(1000), 64),
        ("squeezenet1_1", TorchvisionNetwork("squeezenet1_1", 1000), 64),
        ("alexnet", TorchvisionNetwork("alexnet", 1000), 64),
        ("mobilenet_v3_small", TorchvisionNetwork("mobilenet_v3_small", 1000), 64),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equal_to_torchvision_with_its_weights(name: str, ours: Network, size: int) -> None:
    more = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    theirs = models.get_model(name, weights=None, **more)
    generator = torch.Generator().manual_seed(1)
    for module in theirs.modules():  # so that batch norm is more than the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    state = {ours.rename_torchvision_key(key): v for key, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    images = torch.rand(2, 3, size, size, generator=generator)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_small_images_stand_in_the_middle_for_lenet() -> None:
    network = LeNet5(10, 1).eval()
    image = torch.rand(1, 1, 28, 28)
    padded = nn.functional.pad(image, (2, 2, 2, 2))
    assert torch.equal(network(image), network(padded))


def test_unknown_torchvision_network_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="alexnet"):
        TorchvisionNetwork("alexnett", 10)


def test_segmentation_network_is_refused() -> None:
    with pytest.raises(UserError, match="no classification network"):
        TorchvisionNetwork("fcn_resnet50", 10)


def test_fixed_size_of_a_transformer() -> None:
    network = TorchvisionNetwork("vit_b_16", 10)
    assert (network.min_size, network.max_size) == (224, 224)
