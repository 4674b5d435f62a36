"""Pieces that several networks are made of."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from typing_extensions import override


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU: the brick of the Inception family.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel_size: Height and width of the kernel.
        **kwargs: As for `nn.Conv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int], **kwargs: Any
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False, **kwargs)
        # 0.001 as in torchvision, whose weights expect it
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU()

    @override
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.bn(self.conv(x)))
        return result


class MaxPool2d(nn.MaxPool2d):
    """Max pooling that on a CPU keeps no places for the backward pass, but finds them once more.

    PyTorch keeps the place of each largest value as int64, in twice the memory of a value in
    float32: a quarter of all that a step of GoogLeNet keeps. To pool once more takes little
    time beside a convolution. Arguments, outputs N×C×h×w and gradients are those of
    `nn.MaxPool2d`, and so is the name, by which tables show layers and `--layers` chooses them.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        if self.return_indices or not input.is_cpu or not input.requires_grad:
            result: Tensor = super().forward(input)
        else:
            how = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
            result = _ForgetfulPooling.apply(input, *how)
        return result


class _ForgetfulPooling(Function):
    generate_vmap_rule = True

    @staticmethod
    @override
    def forward(images: Tensor, *how: Any) -> Any:
        return F.max_pool2d(images, *how)

    @staticmethod
    @override
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        images, *ctx.how = inputs
        ctx.save_for_backward(images)

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (images,) = ctx.saved_tensors
        _, places = torch.ops.aten.max_pool2d_with_indices(images, *ctx.how)
        gradient = torch.ops.aten.max_pool2d_with_indices_backward(
            *gradients, images, *ctx.how, places
        )
        return gradient, *(None for _ in ctx.how)


class Linear(nn.Linear):
    """A linear layer for many features, of which autocast copies a few rows at a time on a CPU.

    Autocast copies all weights in each pass, 0.2 GB of VGG-16's largest layer; where no gradients
    are wanted, outputs are computed in groups, each of which needs its own rows alone. Arguments,
    inputs …×in_features float and outputs …×out_features are those of `nn.Linear`; the outputs in
    autocast's type where it is on.
    """

    _rows = 512

    @override
    def forward(self, input: Tensor) -> Tensor:
        whole = torch.is_grad_enabled() or input.device.type != "cpu" or self.bias is None
        if whole or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        weights, biases = (torch.split(one, self._rows) for one in (self.weight, self.bias))
        some = [F.linear(input, *rows) for rows in zip(weights, biases, strict=True)]
        return torch.cat(some, dim=-1)


def initialize_convolutions(network: nn.Module) -> None:
    """Draw kernels from N(0, 2 / fan out): He et al. 2015 (arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, PatchWhitening):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class PatchWhitening(nn.Conv2d):
    """A first layer, not trained, that takes the correlations out of small patches of images.

    Its kernels are the eigenvectors of the covariance of all k×k patches, each over the square root
    of its eigenvalue, and the same with the sign turned: 3.2 of Jordan 2024 (arXiv:2404.00498),
    after Page 2019. Until `fit_to` has seen images, a kernel copies one value of the patch. The
    biases are trained.

    Args:
        in_channels: Colour channels C of an image.
        kernel_size: Height and width k of a patch; 2·C·k² channels go out.
        padding: Zeros on each side.
        epsilon: Added to the eigenvalues; the less, the louder the weakest directions.
    """

    weight: Tensor
    is_fitted: Tensor

    def __init__(
        self, in_channels: int, kernel_size: int, *, padding: int = 0, epsilon: float = 5e-4
    ) -> None:
        num_values = in_channels * kernel_size**2
        super().__init__(in_channels, 2 * num_values, kernel_size, padding=padding)
        self.epsilon = epsilon
        del self.weight  # a buffer: no optimizer sees it
        self.register_buffer("weight", self._with_opposites(torch.eye(num_values)))
        self.register_buffer("is_fitted", torch.tensor(False))  # noqa: FBT003  # its value

    @torch.no_grad()
    def fit_to(self, images: Tensor) -> None:
        """Whiten the patches of these images N×C×H×W float, prepared for the network."""
        side = self.kernel_size[0]
        count, covariance = 0, torch.zeros(())
        for some in torch.split(images.cpu(), 256):
            patches = some.double().unfold(2, side, 1).unfold(3, side, 1)  # n×C×h×w×k×k
            patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)  # P×Ck²
            count += len(patches)
            covariance = covariance + patches.T @ patches
        values, vectors = torch.linalg.eigh(covariance / count)
        scaled = vectors.T / (values[:, None] + self.epsilon).sqrt()
        self.weight.copy_(self._with_opposites(scaled))
        self.is_fitted.fill_(value=True)

    def _with_opposites(self, rows: Tensor) -> Tensor:
        kernels = rows.reshape(-1, self.in_channels, *self.kernel_size)
        return torch.cat([kernels, -kernels]).float()


def use_no_inplace(network: nn.Module) -> None:
    """Let activations leave their input as it is: hooks and class maps need what they saw."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
