"""One contract for all networks, and each against torchvision or the number of a paper."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from make_data import draw_weights
from torch import nn
from torchvision import models

from cnn_lightning import networks
from cnn_lightning.errors import UserError
from cnn_lightning.networks import (
    VGG,
    AirbenchNetwork,
    GoogLeNet,
    InceptionV3,
    LeNet5,
    Network,
    ResidualNetwork,
    SequentialNetwork,
    TorchvisionNetwork,
)
from cnn_lightning.networks.layers import PatchWhitening


def make_sequence(num_classes: int, channels: int) -> SequentialNetwork:
    convolution = (nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
    pooling = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1))
    return SequentialNetwork(nn.Sequential(*convolution, *pooling, nn.Linear(6, num_classes)))


# a row per class: how to build it small, and an image size it takes
ROWS: dict[str, tuple[Callable[[int, int], Network], int]] = {
    "LeNet5": (lambda k, c: LeNet5(k, c), 28),
    "VGG": (lambda k, c: VGG(k, c), 32),
    "AirbenchNetwork": (lambda k, c: AirbenchNetwork(k, c, widths=(8, 16, 16)), 32),
    "ResidualNetwork": (lambda k, c: ResidualNetwork(k, c), 32),
    "GoogLeNet": (lambda k, c: GoogLeNet(k, c, stem="small"), 32),
    "InceptionV3": (lambda k, c: InceptionV3(k, c), 75),
    "SequentialNetwork": (make_sequence, 16),
    "TorchvisionNetwork": (lambda k, c: TorchvisionNetwork("squeezenet1_1", k, c), 64),
}
EVERY = pytest.mark.parametrize("name", ROWS)


def build(
    name: str, num_classes: int = 7, channels: int = 3, device: str = "cpu"
) -> tuple[Network, torch.Tensor]:
    make, size = ROWS[name]
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.device(device):
        return make(num_classes, channels), images.to(device)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def activation_calls(network: Network, images: torch.Tensor) -> dict[str, int]:
    """How often each activation module of the network is used, auxiliary heads included."""
    calls: Counter[str] = Counter()
    for path, module in network.named_modules():
        if type(module).__module__ == "torch.nn.modules.activation":
            calls[path] = 0
            module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    network.eval().auxiliary_logits(images)
    return calls


def test_every_network_has_a_row_and_is_exported() -> None:
    found = {
        name
        for entry in pkgutil.iter_modules(networks.__path__, f"{networks.__name__}.")
        for name, kind in vars(importlib.import_module(entry.name)).items()
        if isinstance(kind, type) and issubclass(kind, Network) and kind.__module__ == entry.name
    }
    assert found == {*ROWS, "Network"}
    assert found == set(networks.__all__)


@EVERY
@pytest.mark.parametrize(("training", "channels"), [(False, 3), (True, 1)])
def test_logits_in_both_modes(name: str, training: bool, channels: int) -> None:
    network, images = build(name, channels=channels)
    logits = network.train(training)(images)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 7)
    assert network.first_conv.in_channels == channels


@EVERY
def test_forward_is_head_after_backbone(name: str) -> None:
    network, images = build(name)
    network.eval()
    features = network.backbone(images)
    assert features.shape[:2] == (2, network.num_features)
    assert torch.equal(network(images), network.head(features))


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
    network, images = build(name, device="meta")  # shapes alone
    small = images[:, :, : network.min_size - 1, : network.min_size - 1]
    with pytest.raises(UserError, match=f"least it can take is {network.min_size}"):
        network.eval()(small)
    with pytest.raises(UserError, match=f"least it can take is {network.min_size}"):
        network.eval().auxiliary_logits(small)


@EVERY
def test_activations_are_not_in_place_and_not_used_twice(name: str) -> None:
    network, images = build(name, device="meta")
    assert [path for path, part in network.named_modules() if getattr(part, "inplace", False)] == []
    calls = activation_calls(network, images)
    assert calls
    assert set(calls.values()) == {1}


def test_an_activation_used_twice_or_in_place_would_be_seen() -> None:
    with torch.device("meta"):
        calls = activation_calls(TorchvisionNetwork("resnet18", 7), torch.rand(2, 3, 32, 32))
        theirs = models.alexnet()
    assert set(calls.values()) == {1, 2}
    assert any(getattr(part, "inplace", False) for part in theirs.modules())


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: LeNet5(10, 1), 61_706),  # LeCun et al. 1998 with a full second convolution
        (lambda: ResidualNetwork(10), 11_173_962),  # pytorch-cifar
        (lambda: VGG(10), 14_728_266),  # pytorch-cifar
        (lambda: ResidualNetwork(1000, depth=18, stem="imagenet"), 11_689_512),  # torchvision
        (lambda: ResidualNetwork(1000, depth=34, stem="imagenet"), 21_797_672),
        (lambda: ResidualNetwork(1000, depth=50, stem="imagenet"), 25_557_032),
        (lambda: ResidualNetwork(1000, depth=101, stem="imagenet"), 44_549_160),
        (lambda: ResidualNetwork(1000, depth=152, stem="imagenet"), 60_192_808),
        (lambda: VGG(1000, stem="imagenet"), 138_365_992),
        # 1,971,352 that airbench94 trains, and the 1,152 scales of batch norm that ours does
        (lambda: AirbenchNetwork(10), 1_972_504),
        (lambda: InceptionV3(1000), 27_161_264),
        (lambda: GoogLeNet(1000, auxiliary=False), 6_624_904),
    ],
    ids=lambda value: f"{value:,}" if isinstance(value, int) else "network",
)
def test_parameter_count(make: Callable[[], Network], parameters: int) -> None:
    with torch.device("meta"):  # shapes alone: nothing is drawn or stored
        assert count(make()) == parameters


def pair(name: str, make: Callable[[], Network]) -> tuple[Network, nn.Module]:
    """Our network and torchvision's with the same weights, in eval mode."""
    state = draw_weights(name)
    with torch.device("meta"):
        more = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
        theirs = models.get_model(name, weights=None, **more)
    theirs.load_state_dict(state, assign=True)
    generator = torch.Generator().manual_seed(1)
    for module in theirs.modules():  # so that batch norm is more than the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    with torch.device("meta"):
        ours = make()
    state = {ours.rename_torchvision_key(key): v for key, v in theirs.state_dict().items()}
    ours.load_state_dict(state, assign=True)
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [
        ("resnet18", lambda: ResidualNetwork(1000, depth=18, stem="imagenet"), 64),
        ("resnet50", lambda: ResidualNetwork(1000, depth=50, stem="imagenet"), 64),
        ("vgg16_bn", lambda: VGG(1000, stem="imagenet"), 64),
        ("inception_v3", lambda: InceptionV3(1000), 80),
        ("googlenet", lambda: GoogLeNet(1000), 64),
        ("squeezenet1_1", lambda: TorchvisionNetwork("squeezenet1_1", 1000), 64),
        ("alexnet", lambda: TorchvisionNetwork("alexnet", 1000), 64),
        ("mobilenet_v3_small", lambda: TorchvisionNetwork("mobilenet_v3_small", 1000), 64),
        ("densenet121", lambda: TorchvisionNetwork("densenet121", 1000), 64),
        ("efficientnet_b0", lambda: TorchvisionNetwork("efficientnet_b0", 1000), 64),
        ("shufflenet_v2_x0_5", lambda: TorchvisionNetwork("shufflenet_v2_x0_5", 1000), 64),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@torch.no_grad()
def test_equal_to_torchvision_with_its_weights(
    name: str, make: Callable[[], Network], size: int
) -> None:
    ours, theirs = pair(name, make)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [("inception_v3", lambda: InceptionV3(1000), 299), ("googlenet", lambda: GoogLeNet(1000), 64)],
    ids=lambda value: value if isinstance(value, str) else "",
)
@torch.no_grad()
def test_auxiliary_logits_equal_torchvision(
    name: str, make: Callable[[], Network], size: int
) -> None:
    ours, theirs = pair(name, make)
    theirs.training = True  # itself alone, so that it gives them, while its layers stay in eval
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    logits, auxiliary = ours.auxiliary_logits(images)
    expected, *backwards = theirs(images)  # torchvision gives the last auxiliary head first
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(auxiliary, backwards[::-1], rtol=1e-4, atol=1e-4)


# a member of each family that meta tensors can build, and those that differ from their family
FAMILIES = ("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "vgg11", "vit_b_16", "vit_h_14")  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_torchvision_gives_logits_at_its_sizes(name: str) -> None:
    with torch.device("meta"), torch.no_grad():
        network = TorchvisionNetwork(name, 7, in_channels=1).eval()
        for size in {network.min_size, network.default_size}:
            assert network(torch.empty(2, 1, size, size)).shape == (2, 7)
        keys = models.get_model(name, weights=None).state_dict()
    assert {network.rename_torchvision_key(key) for key in keys} == set(network.state_dict())


def test_small_images_stand_in_the_middle_for_lenet() -> None:
    network = LeNet5(10, 1).eval()
    image = torch.rand(1, 1, 28, 28)
    padded = nn.functional.pad(image, (2, 2, 2, 2))
    assert torch.equal(network(image), network(padded))


def test_a_whitened_stem_is_not_trained_and_keeps_the_size() -> None:
    network = ResidualNetwork(10, stem="whitened")
    assert isinstance(network.first_conv, PatchWhitening)
    assert network.first_conv.weight.abs().sum() == 54  # not drawn: one value of a patch each
    assert network.first_conv(torch.rand(2, 3, 32, 32)).shape == (2, 54, 32, 32)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 10)


def test_a_network_of_torchvision_is_called_by_its_name() -> None:
    with torch.device("meta"):
        network = TorchvisionNetwork("alexnet", 10)
        with pytest.raises(UserError, match="alexnet cannot take images of 8×8 pixels"):
            network(torch.empty(1, 3, 8, 8))


def test_unknown_torchvision_network_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="alexnet"):
        TorchvisionNetwork("alexnett", 10)


def test_segmentation_network_is_refused() -> None:
    with pytest.raises(UserError, match="no classification network"):
        TorchvisionNetwork("fcn_resnet50", 10)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_network_with_auxiliary_heads_is_refused_for_our_own(name: str) -> None:
    with pytest.raises(UserError, match="class_path: Inception"):
        TorchvisionNetwork(name, 10)


def test_networks_without_auxiliary_heads_give_no_auxiliary_logits() -> None:
    network = GoogLeNet(7, stem="small", auxiliary=False)
    assert network.auxiliary_weight == 0
    assert network.eval().auxiliary_logits(torch.rand(2, 3, 32, 32))[1] == []


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "gelu"])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_lenet_takes_every_size_from_28_to_32(
    activation: Literal["tanh", "relu", "sigmoid", "gelu"], pooling: Literal["avg", "max"]
) -> None:
    network = LeNet5(10, 1, activation=activation, pooling=pooling).eval()
    for side in range(28, 33):
        assert network(torch.rand(2, 1, side, side)).shape == (2, 10)
    with pytest.raises(UserError, match="most it can take is 32"):
        network(torch.rand(2, 1, 33, 33))


def test_fixed_size_of_a_transformer() -> None:
    with torch.device("meta"):
        network = TorchvisionNetwork("vit_b_16", 10)
        larger = TorchvisionNetwork("vit_b_16", 10, image_size=384)
    assert (network.min_size, network.max_size) == (224, 224)
    assert (larger.min_size, larger.max_size) == (384, 384)
    with torch.device("meta"), pytest.raises(UserError, match="multiple of 16"):
        TorchvisionNetwork("vit_b_16", 10, image_size=100)


def draw_statistics(network: nn.Module) -> None:
    """Give each batch norm numbers that change what it sees."""
    draws = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            numbers = (module.running_var, module.weight.data)
            for one in (*numbers, module.running_mean, module.bias.data):
                one.uniform_(0.5, 1.5, generator=draws)


@EVERY
def test_features_of_images_that_come_in_parts_are_those_of_the_backbone(name: str) -> None:
    network, images = build(name)
    draw_statistics(network.eval())
    with torch.inference_mode():
        found = network.features_of(iter(torch.split(images, 1)))
        wanted = network.backbone(images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("precision", "size", "at_once"),
    [(torch.float32, 160, [1, 1, 1]), (torch.bfloat16, 32, [2, 1])],  # bfloat16: slow, emulated
)
def test_large_images_pass_vgg_one_by_one_and_its_linear_layers_together(
    precision: torch.dtype, size: int, at_once: list[int]
) -> None:
    network = VGG(3, stem="imagenet").eval()
    draw_statistics(network)
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = {key: one.clone() for key, one in network.state_dict().items() if "features" in key}
    seen: list[int] = []
    network.backbone.features[0].register_forward_hook(lambda *args: seen.append(len(args[2])))
    is_bfloat16 = precision == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=is_bfloat16):
        found = network.features_of(torch.split(images, 2))
        assert seen == at_once
        wanted = network.backbone(images)
    assert found.dtype == wanted.dtype == precision
    torch.testing.assert_close(found, wanted, rtol=2e-2 if is_bfloat16 else 1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0
    for key, one in before.items():
        torch.testing.assert_close(network.state_dict()[key], one, rtol=0, atol=0)


def test_a_backbone_put_in_vggs_place_is_taken_as_it_is() -> None:
    network, images = build("VGG")
    network.backbone = nn.Sequential(network.eval().backbone, nn.Tanh())
    with torch.inference_mode():
        found = network.features_of(torch.split(images, 1))
        torch.testing.assert_close(found, network.backbone(images), rtol=1e-4, atol=1e-6)
