import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Permute

from cnn_lightning.analysis.activations import channels_first, listening, record_outputs
from cnn_lightning.analysis.layers import select_layers
from cnn_lightning.networks import LeNet5


def num_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_outputs_equal_those_of_a_direct_forward_pass() -> None:
    network = LeNet5(10, 1, activation="relu", pooling="max")
    images = torch.randn(3, 1, 28, 28)
    outputs = record_outputs(network, select_layers(network, "all"), images)
    layers = network.backbone
    first = F.conv2d(F.pad(images, (2, 2, 2, 2)), layers.conv1.weight, layers.conv1.bias)
    second = layers.conv2(layers.pool1(layers.act1(first)))
    torch.testing.assert_close(outputs["backbone.conv1"], first.detach(), rtol=0, atol=0)
    torch.testing.assert_close(outputs["backbone.conv2"], second.detach(), rtol=0, atol=0)


def test_outputs_of_parts_are_those_of_all_images() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    images = torch.randn(5, 1, 2, 2)
    layers = {"linear": network[1], "relu": network[2]}
    whole = record_outputs(network, layers, images)
    parts = record_outputs(network, layers, images, batch_size=2)
    assert seen == [5, 2, 2, 1]
    assert list(parts) == list(whole)
    for name, output in whole.items():
        torch.testing.assert_close(parts[name], output)


def test_a_layer_may_see_an_image_in_several_windows() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(0, 1), nn.ReLU())
    images = torch.randn(5, 1, 3, 2)
    whole = record_outputs(network, {"relu": network[2]}, images)["relu"]
    parts = record_outputs(network, {"relu": network[2]}, images, batch_size=2)["relu"]
    assert whole.shape == (10, 3, 2)
    torch.testing.assert_close(parts, whole)


def test_what_is_kept_of_an_output_can_be_chosen() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU())
    images = torch.randn(3, 1, 2, 2)
    layers = {"conv": network[0], "relu": network[1]}
    numbers = {"conv": 1, "relu": 3}
    whole = record_outputs(network, layers, images)
    some = record_outputs(
        network, layers, images, batch_size=2, select=lambda name, one: one[:, : numbers[name]]
    )
    for name, number in numbers.items():
        torch.testing.assert_close(some[name], whole[name][:, :number], rtol=0, atol=0)


def test_an_output_is_kept_as_it_was_before_a_layer_that_works_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    images = torch.randn(2, 1, 4, 4)
    outputs = record_outputs(network, {"conv": network[0]}, images)
    torch.testing.assert_close(outputs["conv"], network[0](images).detach(), rtol=0, atol=0)
    assert (outputs["conv"] < 0).any()


def test_modes_buffers_gradients_and_draws_stay_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    outputs = record_outputs(network, {"drop": network[2]}, torch.randn(4, 1, 3, 3).clone())
    state_after = torch.get_rng_state()
    assert (outputs["drop"] != 0).all()  # dropout rests in eval mode
    assert [module.training for module in network] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.set_rng_state(state)
    torch.randn(4, 1, 3, 3)  # the only draw there was
    assert torch.equal(torch.get_rng_state(), state_after)


def test_hooks_come_off_whatever_happens() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    network.train()
    with pytest.raises(RuntimeError, match="channels"):
        record_outputs(network, {"conv": network[0]}, torch.randn(1, 3, 4, 4))
    assert num_hooks(network) == 0
    assert network.training

    def refuse(name: str, output: Tensor) -> None:
        raise ValueError(name)

    images = torch.randn(1, 1, 4, 4)
    with pytest.raises(ValueError, match="relu"), listening({"relu": network[1]}, refuse):
        network(images)
    assert num_hooks(network) == 0


def test_a_layer_that_is_used_twice_has_two_outputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(1 - self.relu(x))

    network = Twice()
    outputs = record_outputs(network, {"relu": network.relu}, torch.tensor([[-1.0, 0.25, 3.0]]))
    assert outputs["relu"].tolist() == [[0.0, 0.25, 3.0]]
    assert outputs["relu#2"].tolist() == [[1.0, 0.75, 0.0]]


def test_a_compiled_network_is_seen_too() -> None:
    network = LeNet5(10, 1)
    layers = select_layers(network, "first")
    images = torch.randn(2, 1, 28, 28)
    expected = record_outputs(network, layers, images)["backbone.conv1"]
    network.compile(backend="eager")
    network.eval()
    network(images)
    # without the stance, hooks set after the first compiled call never fire (PyTorch issue 117758)
    outputs = record_outputs(network, layers, images)
    torch.testing.assert_close(outputs["backbone.conv1"], expected, rtol=0, atol=0)


def test_channels_that_a_layer_puts_last_come_first() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), Permute([0, 2, 3, 1]), nn.LayerNorm(8))
    images = torch.randn(2, 3, 16, 16)
    outputs = record_outputs(network, {"first": network[0], "last": network[1]}, images)
    last = channels_first(outputs["last"], images)
    torch.testing.assert_close(last, outputs["first"], rtol=0, atol=0)
    assert channels_first(outputs["first"], images) is outputs["first"]
    wide = torch.zeros(2, 5, 5, 9)  # of a wide image, five channels of 5×9
    assert channels_first(wide, torch.zeros(2, 3, 20, 36)) is wide
