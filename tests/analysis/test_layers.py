import pytest
from torch import nn

from cnn_lightning.analysis.layers import named_layers, select_layers
from cnn_lightning.errors import UserError
from cnn_lightning.networks import InceptionV3, LeNet5, ResidualNetwork


def test_first_last_and_all_are_convolutions() -> None:
    network = LeNet5(10, 1)
    assert list(select_layers(network, "first")) == ["backbone.conv1"]
    assert list(select_layers(network, "last")) == ["backbone.conv2"]
    assert list(select_layers(network, "all")) == ["backbone.conv1", "backbone.conv2"]


def test_classes_and_patterns_in_the_order_of_the_network() -> None:
    network = LeNet5(10, 1, pooling="max")
    assert list(select_layers(network, "MaxPool2d")) == ["backbone.pool1", "backbone.pool2"]
    chosen = select_layers(network, ["backbone.fc?", "first", "*.conv*"])
    assert list(chosen) == ["backbone.conv1", "backbone.conv2", "backbone.fc3", "backbone.fc4"]
    assert all(network.get_submodule(name) is layer for name, layer in chosen.items())


def test_a_module_with_parts_is_chosen_by_its_full_path_alone() -> None:
    network = ResidualNetwork(10, 3, depth=18)
    assert list(select_layers(network, "backbone.layer2")) == ["backbone.layer2"]
    assert "backbone.layer2" not in select_layers(network, "backbone.layer2*")


def test_a_pattern_that_matches_nothing_lists_the_names() -> None:
    with pytest.raises(UserError, match=r"no layer is 'features\.\*'") as caught:
        select_layers(LeNet5(10, 1), ["first", "features.*"])
    assert "backbone.conv1, backbone.act1" in caught.value.remedy
    assert "Conv2d" in caught.value.remedy


def test_auxiliary_heads_are_no_layers_of_the_network_that_predicts() -> None:
    network = InceptionV3(10, 3)
    assert any("AuxLogits" in name for name, _ in network.named_modules())
    assert all(name.startswith(("backbone.", "head")) for name in named_layers(network))


def test_any_module_will_do() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(nn.Conv2d(1, 1, 1)))
    assert list(select_layers(network, "last")) == ["1.0"]
