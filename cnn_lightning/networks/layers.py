"""Pieces that several networks are made of."""

from typing import Any

from torch import Tensor, nn
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


def initialize_convolutions(network: nn.Module) -> None:
    """Draw kernels from N(0, 2 / fan out): He et al. 2015 (arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def use_no_inplace(network: nn.Module) -> None:
    """Let activations leave their input as it is: hooks and class maps need what they saw."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
