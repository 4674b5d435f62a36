from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cnn_lightning.networks.layers import Linear, MaxPool2d, PatchWhitening


def smooth_images(num_images: int = 200, channels: int = 3) -> Tensor:
    """Noise that is blurred, so that neighbouring pixels are alike: N×C×16×16."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(num_images, channels, 18, 18, generator=generator)
    return 3 * F.avg_pool2d(noise, 3, stride=1)


def covariance(layer: PatchWhitening, images: Tensor) -> Tensor:
    """Second moments of the layer's outputs, without their opposites and without biases."""
    half = layer.out_channels // 2
    values = F.conv2d(images, layer.weight[:half]).movedim(1, 0).flatten(1).double()
    return values @ values.T / values.shape[1]


def test_outputs_are_uncorrelated_and_of_one_size() -> None:
    images = smooth_images()
    layer = PatchWhitening(3, 2, epsilon=0)
    before = covariance(layer, images)
    layer.fit_to(images)
    torch.testing.assert_close(covariance(layer, images), torch.eye(12).double(), atol=1e-4, rtol=0)
    # they are neither before
    assert (before - torch.eye(12)).abs().max() > 0.5


def test_epsilon_keeps_weak_directions_quiet() -> None:
    images = smooth_images()
    layer = PatchWhitening(3, 2, epsilon=0.5)
    layer.fit_to(images)
    found = covariance(layer, images)
    exact = PatchWhitening(3, 2, epsilon=0)
    exact.fit_to(images)
    # an eigenvalue v of the images leaves as v / (v + epsilon)
    values = torch.linalg.eigvalsh(covariance_of_patches(images))
    torch.testing.assert_close(found.diagonal(), values / (values + 0.5), atol=1e-4, rtol=0)


def covariance_of_patches(images: Tensor) -> Tensor:
    patches = F.unfold(images, 2).double().movedim(1, 0).flatten(1)  # 12×P
    return patches @ patches.T / patches.shape[1]


def test_each_kernel_has_its_opposite() -> None:
    layer = PatchWhitening(1, 3)
    assert layer.out_channels == 18
    layer.fit_to(smooth_images(channels=1))
    assert torch.equal(layer.weight[:9], -layer.weight[9:])


def test_only_the_biases_are_trained_and_the_kernels_are_kept() -> None:
    layer = PatchWhitening(3, 2)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    layer.fit_to(smooth_images())
    fresh = PatchWhitening(3, 2)
    assert not fresh.is_fitted
    fresh.load_state_dict(layer.state_dict())
    assert fresh.is_fitted
    assert torch.equal(fresh.weight, layer.weight)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("padding", [0, 1])
def test_max_pooling_keeps_no_places_and_gives_the_same(
    padding: int, memory_format: torch.memory_format
) -> None:
    # rounded, so that windows have several largest values
    images = torch.randn(2, 3, 9, 9).mul(2).round().to(memory_format=memory_format)
    theirs, ours = (
        kind(3, stride=2 - padding, padding=padding, ceil_mode=True)
        for kind in (nn.MaxPool2d, MaxPool2d)
    )
    found = [_pool(pool, images) for pool in (theirs, ours)]
    assert [dtypes for *_, dtypes in found] == [{torch.float32, torch.int64}, {torch.float32}]
    for expected, value in zip(found[0][:-1], found[1][:-1], strict=True):
        assert torch.equal(expected, value)
    wanted = torch.func.vmap(torch.func.grad(lambda image: theirs(image).square().sum()))(images)
    assert torch.equal(
        torch.func.vmap(torch.func.grad(lambda image: ours(image).square().sum()))(images), wanted
    )


def test_places_are_given_where_they_are_asked_for() -> None:
    images = torch.randn(2, 3, 9, 9, requires_grad=True)
    found = [kind(3, return_indices=True)(images) for kind in (nn.MaxPool2d, MaxPool2d)]
    for expected, value in zip(*found, strict=True):
        assert torch.equal(expected, value)


def _pool(pool: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor, set[torch.dtype]]:
    """The output, the gradient, the gradient of its square, and the dtypes of what was kept."""
    images = images.clone().requires_grad_()
    kept: set[torch.dtype] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pooled = pool(images)
    weights = torch.arange(pooled.numel()).view_as(pooled)
    loss = (pooled.square() * weights).sum()
    (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    return pooled, gradient, second, kept


def test_a_linear_layer_under_autocast_copies_a_few_rows_of_its_weights_at_a_time() -> None:
    layer = Linear(30, 1100).requires_grad_(requires_grad=False)
    inputs = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    copied: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default and args[0].ndim == 2:
                copied.append(len(args[0]))
            return result

    for grad, wanted in ((False, {4, 512, 76}), (True, {4, 1100})):
        copied.clear()
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16), Watch():
            found = layer(inputs)
        assert set(copied) == wanted
        assert found.dtype == torch.bfloat16
        expected = F.linear(inputs, layer.weight, layer.bias)
        torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(layer(inputs), expected, rtol=0, atol=0)
