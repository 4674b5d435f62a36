"""Muon against the singular value decomposition, and its other half against torch's AdamW."""

from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import LAST, assert_resumes_exactly
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock

from cnn_lightning.networks import ResidualNetwork
from cnn_lightning.optim import MuonAdamW, MuonSGD, orthogonalize, split_weight_decay

RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 120, num_test: 20, batch_size: 30}
model: LeNet
optimizer:
  class_path: cnn_lightning.optim.MuonAdamW
  init_args: {lr: 0.02, adam_lr: 0.005, weight_decay: 0.01}
trainer: {max_epochs: 2}
"""


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 27), (16, 144), (40, 40), (10, 1), (1, 9)])
def test_singular_values_end_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    matrices = torch.stack([some(*shape, seed=seed) for seed in range(4)])
    found = orthogonalize(matrices)
    for matrix, step in zip(matrices, found, strict=True):
        u, values, v = torch.linalg.svd(matrix, full_matrices=False)
        inside = u.T @ step @ v.T  # diagonal if the singular vectors are the same
        diagonal = inside.diagonal()
        # what the quintic makes of 0.002..1 in five steps; square matrices have values below
        clear = values > 0.002 * values.norm()
        assert clear.sum() > 0.9 * len(values)
        assert ((diagonal[clear] > 0.68) & (diagonal[clear] < 1.21)).all()
        assert ((diagonal > 0) & (diagonal < 1.21)).all()
        assert (inside - torch.diag(diagonal)).abs().max() < 1e-3
        torch.testing.assert_close(step, u @ inside @ v)
        assert values.max() / values.min() > 1.5 or len(values) == 1  # they were not all alike


def test_the_values_are_those_of_the_quintic() -> None:
    values = torch.tensor([0.9, 0.4, 0.1, 0.02])
    matrix = torch.diag(values)
    wanted = values / (values.norm() + 1e-7)
    for _ in range(5):
        wanted = 3.4445 * wanted - 4.7750 * wanted**3 + 2.0315 * wanted**5
    torch.testing.assert_close(orthogonalize(matrix[None])[0].diagonal(), wanted)


def test_the_scale_of_a_gradient_does_not_matter() -> None:
    matrices = some(2, 8, 20)
    torch.testing.assert_close(orthogonalize(1e3 * matrices), orthogonalize(matrices))


def gradients_for(network: nn.Module, seed: int) -> None:
    for number, parameter in enumerate(network.parameters()):
        parameter.grad = some(*parameter.shape, seed=100 * seed + number)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4, 10)
    )


def test_kernels_are_stepped_as_the_formula_says() -> None:
    network = layers()
    optimizer = MuonAdamW(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    kernels = [network[0].weight.detach().clone(), network[2].weight.detach().clone()]
    buffers = [torch.zeros_like(kernel) for kernel in kernels]
    for step in range(3):
        gradients_for(network, step)
        optimizer.step()
        for kernel, buffer, layer in zip(kernels, buffers, (network[0], network[2]), strict=True):
            gradient = layer.weight.grad
            assert gradient is not None
            buffer.mul_(0.9).add_(gradient)
            whole = orthogonalize((gradient + 0.9 * buffer).flatten(1)[None])[0]
            rows, columns = whole.shape
            kernel.mul_(1 - 0.1 * 0.5)
            kernel.sub_(0.1 * max(1, rows / columns) ** 0.5 * whole.reshape(kernel.shape))
            torch.testing.assert_close(layer.weight, kernel)


def test_kernels_of_many_shapes_are_stepped_as_each_alone() -> None:
    # smaller sides of their matrices: 8, 8, 8, 3, 8, 5
    shapes = [(8, 3, 3, 3), (27, 2, 2, 2), (8, 8, 3, 3), (8, 3, 1, 1), (8, 8, 1, 1), (5, 8, 1, 1)]
    kernels = [nn.Parameter(some(*shape, seed=seed)) for seed, shape in enumerate(shapes)]
    alone = [nn.Parameter(kernel.detach().clone()) for kernel in kernels]
    for kernel, one in zip(kernels, alone, strict=True):
        kernel.grad = some(*kernel.shape, seed=99).to(memory_format=torch.channels_last)
        one.grad = kernel.grad.clone()
    MuonAdamW(kernels, lr=0.1).step()
    for kernel, one in zip(kernels, alone, strict=True):
        MuonAdamW([one], lr=0.1).step()
        torch.testing.assert_close(kernel, one)


def test_everything_else_is_stepped_as_by_torch() -> None:
    network, reference = layers(), layers()
    optimizer = MuonAdamW(
        split_weight_decay(network), adam_lr=0.2, adam_betas=(0.8, 0.9), adam_weight_decay=0.1
    )
    vectors = [parameter for parameter in reference.parameters() if parameter.ndim < 2]
    adam = torch.optim.AdamW(
        [{"params": [reference[4].weight]}, {"params": vectors, "weight_decay": 0}],
        lr=0.2,
        betas=(0.8, 0.9),
        weight_decay=0.1,
    )
    for step in range(3):
        for one in (network, reference):
            gradients_for(one, step)
        optimizer.step()
        adam.step()
    for one, other in zip(network.parameters(), reference.parameters(), strict=True):
        if one.ndim <= 2:
            assert torch.equal(one, other)


@pytest.mark.parametrize("linear_lr", [None, 0.05])
def test_everything_else_is_stepped_as_by_torchs_sgd(linear_lr: float | None) -> None:
    network, reference = layers(), layers()
    optimizer = MuonSGD(
        split_weight_decay(network),
        sgd_lr=0.2,
        linear_lr=linear_lr,
        sgd_momentum=0.7,
        sgd_weight_decay=0.1,
    )
    vectors = [parameter for parameter in reference.parameters() if parameter.ndim < 2]
    linear = {"params": [reference[4].weight], "lr": linear_lr or 0.2}
    sgd = torch.optim.SGD(
        [linear, {"params": vectors, "weight_decay": 0}],
        lr=0.2,
        momentum=0.7,
        weight_decay=0.1,
        nesterov=True,
    )
    for step in range(3):
        for one in (network, reference):
            gradients_for(one, step)
        optimizer.step()
        sgd.step()
    for one, other in zip(network.parameters(), reference.parameters(), strict=True):
        if one.ndim <= 2:
            assert torch.equal(one, other)


def test_kernels_do_not_care_what_steps_the_rest() -> None:
    networks = [layers(), layers()]
    for network, kind in zip(networks, (MuonAdamW, MuonSGD), strict=True):
        optimizer = kind(network.parameters(), lr=0.1, momentum=0.6, weight_decay=0.2, ns_steps=3)
        for step in range(2):
            gradients_for(network, step)
            optimizer.step()
    assert torch.equal(networks[0][2].weight, networks[1][2].weight)
    assert not torch.equal(networks[0][4].weight, networks[1][4].weight)


def test_kernels_are_normalized_before_a_step_if_so_wished() -> None:
    network = layers()
    optimizer = MuonAdamW(network.parameters(), lr=0.0, normalize_kernels=True)
    gradients_for(network, 0)
    optimizer.step()
    for layer in (network[0], network[2]):
        wanted = torch.tensor(float(len(layer.weight))).sqrt()
        torch.testing.assert_close(layer.weight.norm(), wanted)


def test_every_parameter_of_a_network_is_in_one_group() -> None:
    network = ResidualNetwork(18, 10)
    groups = MuonAdamW(split_weight_decay(network), adam_lr=0.5).param_groups
    found = [parameter for group in groups for parameter in group["params"]]
    assert {id(parameter) for parameter in found} == {id(p) for p in network.parameters()}
    assert len(found) == len(list(network.parameters()))
    by_ndim = {group["params"][0].ndim: group for group in groups}
    assert ["momentum" in by_ndim[n] for n in (4, 2, 1)] == [True, False, False]
    assert [by_ndim[n]["lr"] for n in (4, 2, 1)] == [0.02, 0.5, 0.5]
    assert by_ndim[1]["weight_decay"] == 0


def test_scales_of_layers_are_no_kernels() -> None:
    block = CNBlock(8, layer_scale=1e-6, stochastic_depth_prob=0.0)
    groups = MuonAdamW(split_weight_decay(block), adam_weight_decay=0.1).param_groups
    (group,) = [one for one in groups if any(p is block.layer_scale for p in one["params"])]
    assert "momentum" not in group
    assert group["weight_decay"] == 0
    optimizer = MuonAdamW(block.parameters(), lr=0.02, adam_lr=1e-8)
    gradients_for(block, 0)
    optimizer.step()
    assert block.layer_scale.abs().max() < 1e-5


def test_positions_of_a_transformer_are_no_kernel() -> None:
    positions = nn.Parameter(some(1, 5, 8))
    (group,) = MuonAdamW([positions]).param_groups
    assert "momentum" not in group
    (group,) = MuonSGD([positions], linear_lr=0.5).param_groups
    assert group["lr"] == 0.5


def test_channels_last_kernels_are_stepped_alike() -> None:
    networks = [layers(), layers().to(memory_format=torch.channels_last)]
    for network in networks:
        optimizer = MuonAdamW(network.parameters())
        gradients_for(network, 0)
        optimizer.step()
    torch.testing.assert_close(networks[0][0].weight, networks[1][0].weight)


@pytest.mark.parametrize(
    "argument",
    [
        {"lr": -1},
        {"momentum": 1},
        {"ns_steps": 0},
        {"adam_lr": float("nan")},
        {"adam_betas": (0.9, 1.0)},
    ],
)
def test_numbers_out_of_range_are_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(argument))):
        MuonAdamW(layers().parameters(), **argument)


@pytest.mark.parametrize(
    "argument",
    [{"sgd_lr": -1}, {"linear_lr": -1}, {"sgd_momentum": 0}, {"sgd_momentum": 1}, {"ns_steps": 0}],
)
def test_numbers_out_of_the_range_of_sgd_are_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(argument))):
        MuonSGD(layers().parameters(), **argument)


def test_a_resumed_run_by_sgd_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.replace("AdamW", "SGD").replace(
        "adam_lr: 0.005", "sgd_lr: 0.01, linear_lr: 0.1"
    )
    run = assert_resumes_exactly(recipe, tmp_path, monkeypatch, 5)
    groups = torch.load(run / LAST, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert sorted(group["initial_lr"] for group in groups) == [0.01, 0.02, 0.1]


def test_a_resumed_run_has_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = assert_resumes_exactly(RECIPE, tmp_path, monkeypatch, 5)
    groups = torch.load(run / LAST, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.02, 0.005, 0.005]
