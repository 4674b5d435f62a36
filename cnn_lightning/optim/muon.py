"""Muon: steps of momentum that are orthogonal matrices."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from cnn_lightning.optim.building import count_dimensions

# of the quintic polynomial: Jordan et al. 2024, kellerjordan.github.io/posts/muon
_QUINTIC = (3.4445, -4.7750, 2.0315)
# how many dimensions kernels have, of convolutions over lines, images and volumes
KERNELS = (3, 4, 5)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move all singular values of matrices near 1, and leave their singular vectors.

    Newton–Schulz iteration X ← aX + (bA + cA²)X with A = XXᵀ (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon). Its coefficients lift small values fast and do not converge:
    after five steps, values from 0.002 of the matrix's norm on end between 0.68 and 1.21.

    Args:
        matrices: B×R×C float.
        steps: Iterations, at least 1.

    Returns:
        B×R×C with the dtype of `matrices`; computed in bfloat16 on a GPU, in float32 on the CPU.

    Example:
        >>> orthogonalize(torch.diag(torch.tensor([5.0, -2.0]))[None])[0].abs() > 0.6
        tensor([[ True, False],
                [False,  True]])
    """
    a, b, c = _QUINTIC
    x = matrices.to(_computing_dtype(matrices.device))
    is_tall = matrices.shape[1] > matrices.shape[2]
    if is_tall:  # A is the smaller for it
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


class MuonBase(Optimizer, ABC):
    """Muon for the kernels of convolutions; a subclass steps everything else."""

    @override
    @torch.no_grad()
    def step(  # type: ignore[override]  # torch's own are declared like this one
        self, closure: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if "ns_steps" in group:
                self._step_by_muon(group, moving)
            elif moving:
                gradients = [one.grad for one in moving if one.grad is not None]
                self._step_others(group, moving, gradients)
        return loss

    @abstractmethod
    def _step_others(
        self, group: dict[str, Any], moving: list[Tensor], gradients: list[Tensor]
    ) -> None:
        """Step parameters that are no kernels, by their gradients."""

    def _step_by_muon(self, group: dict[str, Any], moving: list[Tensor]) -> None:
        if group["weight_decay"]:
            torch._foreach_mul_(moving, 1 - group["lr"] * group["weight_decay"])
        if group["normalize_kernels"]:
            _normalize(moving)
        by_side: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for kernel, direction in zip(moving, self._directions(group, moving), strict=True):
            by_side[min(_sides(kernel.shape))].append((kernel, direction))
        # together: a GPU would wait for its next order most of the time
        for alike in by_side.values():
            steps = _orthogonalize_together([one for _, one in alike], group["ns_steps"])
            for (kernel, _), step in zip(alike, steps, strict=True):
                rows, columns = _sides(kernel.shape)
                kernel.add_(step, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _directions(self, group: dict[str, Any], moving: list[Tensor]) -> list[Tensor]:
        """Where momentum points."""
        gradients = [kernel.grad for kernel in moving if kernel.grad is not None]
        for kernel in moving:
            if "momentum_buffer" not in self.state[kernel]:
                self.state[kernel]["momentum_buffer"] = torch.zeros_like(kernel)
        buffers = [self.state[kernel]["momentum_buffer"] for kernel in moving]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        if not group["nesterov"]:
            return buffers
        return list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))


def _sides(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of the matrix O×Ihw that a kernel O×I×… is."""
    return shape[0], math.prod(shape[1:])


def _orthogonalize_together(directions: list[Tensor], steps: int) -> list[Tensor]:
    """`orthogonalize` for kernels whose matrices have the same smaller side, in one go.

    Matrices lie along the larger side, those that are shorter than others filled up with columns of
    zeros, which stay zeros and change none of the singular values.

    Args:
        directions: Kernels O×I×…
        steps: Iterations.

    Returns:
        Kernels of the same shapes, in the dtype that they are computed in.
    """
    shapes, device = [one.shape for one in directions], directions[0].device
    longest = max(max(_sides(shape)) for shape in shapes)
    size = (len(shapes), min(_sides(shapes[0])), longest)
    matrices = torch.zeros(size, dtype=_computing_dtype(device), device=device)
    for place, direction in zip(_as_kernels(matrices, shapes), directions, strict=True):
        place.copy_(direction)
    return _as_kernels(orthogonalize(matrices, steps), shapes)


def _as_kernels(matrices: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Kernels O×I×… seen in what lies in matrices along their larger sides."""
    kernels = []
    for matrix, shape in zip(matrices, shapes, strict=True):
        rows, columns = _sides(shape)
        part = matrix[:, : max(rows, columns)]
        kernels.append((part.mT if rows > columns else part).unflatten(1, shape[1:]))
    return kernels


def _computing_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _normalize(kernels: list[Tensor]) -> None:
    """Scale each kernel O×I×… to the norm sqrt(O), in place."""
    scales = torch._foreach_norm(kernels)
    torch._foreach_clamp_min_(scales, 1e-7)
    torch._foreach_reciprocal_(scales)
    torch._foreach_mul_(scales, [len(kernel) ** 0.5 for kernel in kernels])
    for kernel, scale in zip(kernels, scales, strict=True):
        kernel.mul_(scale)


def muon_settings(
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,  # noqa: FBT001  # passed on as it came
    ns_steps: int,
    normalize_kernels: bool,  # noqa: FBT001
) -> dict[str, Any]:
    """What the group of the kernels says."""
    check_ranges(lr=(lr, math.inf), momentum=(momentum, 1), weight_decay=(weight_decay, math.inf))
    if ns_steps < 1:
        raise ValueError(f"ns_steps is {ns_steps}, it must be at least 1")
    return {
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
        "ns_steps": ns_steps,
        "normalize_kernels": normalize_kernels,
    }


def check_ranges(**ranges: tuple[float, float]) -> None:
    """Refuse values that are not in 0 to below a limit, each given as (value, limit)."""
    for name, (value, below) in ranges.items():
        if not 0 <= value < below:
            raise ValueError(f"{name} is {value}, it must be in 0..{below}")


def split_by_dimensions(
    params: Iterable[Any], kinds: Sequence[tuple[dict[str, Any], Sequence[int]]]
) -> list[dict[str, Any]]:
    """Groups of parameters of one kind each; none is empty.

    Args:
        params: Parameters, or groups of them.
        kinds: The settings of each kind, and how many dimensions its parameters have
            (`count_dimensions`).
    """
    given = list(params)
    if not given or not isinstance(given[0], dict):
        given = [{"params": given}]
    groups = []
    for group in given:
        for settings, dimensions in kinds:
            members = [one for one in group["params"] if count_dimensions(one) in dimensions]
            if members:
                groups.append({**settings, **group, "params": members})
    return groups
