"""Both layouts of a network are timed, and the network stays as it was."""

import copy

import pytest
import torch
from torch import nn

from cnn_lightning.commands.benchmarking import layouts
from cnn_lightning.commands.benchmarking.layouts import LAYOUTS, time_layouts, train_step
from cnn_lightning.networks import GoogLeNet, LeNet5


def test_steps_of_both_layouts_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def step(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        kernel = next(p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1)
        in_order = [t.is_contiguous(memory_format=torch.channels_last) for t in (kernel, images)]
        seen.append(tuple(in_order))
        train_step(network, images, labels)

    monkeypatch.setattr(layouts, "train_step", step)
    network = LeNet5(4, 3)
    before = copy.deepcopy(network.state_dict())
    found = time_layouts(network, torch.randn(6, 3, 32, 32), torch.arange(6) % 4, repeats=2)
    assert {name: len(seconds) for name, seconds in found.items()} == dict.fromkeys(LAYOUTS, 2)
    assert all(second > 0 for seconds in found.values() for second in seconds)
    assert seen == [(True, True), (False, False)] * 3
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_auxiliary_heads_are_part_of_the_step() -> None:
    network = GoogLeNet(4, 3, stem="small")
    before = network.aux1.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    train_step(network, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert any(not torch.equal(before[k], v) for k, v in network.aux1.state_dict().items())
