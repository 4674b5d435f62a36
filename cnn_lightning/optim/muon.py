"""Muon: steps of momentum that are orthogonal matrices."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

# of the quintic polynomial: Jordan et al. 2024, kellerjordan.github.io/posts/muon
_QUINTIC = (3.4445, -4.7750, 2.0315)


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
    x = matrices.to(torch.float32 if matrices.device.type == "cpu" else torch.bfloat16)
    is_tall = matrices.shape[1] > matrices.shape[2]
    if is_tall:  # A is the smaller for it
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


class MuonSGD(Optimizer):
    """Muon for the kernels of convolutions, SGD for everything else.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalises what momentum makes
    of the gradient, each kernel O×I×h×w seen as a matrix O×Ihw, and scales a step by
    sqrt(max(1, rows / columns)). Biases, norms and fully connected layers are trained by SGD as
    torch does it, with rates of their own; a schedule scales all of them alike.

    Args:
        params: Parameters, or groups of them; what a group says of `weight_decay` holds.
        lr: Rate of the kernels.
        momentum: Momentum of the kernels, 0 to below 1.
        weight_decay: Decay of the kernels, which shrink by lr · weight_decay a step.
        nesterov: Whether both momenta are Nesterov's.
        ns_steps: Newton–Schulz iterations.
        normalize_kernels: Whether each kernel is scaled to the norm sqrt(O) before each step, as
            in airbench94_muon (github.com/KellerJordan/cifar10-airbench).
        sgd_lr: Rate of the other parameters.
        head_lr: Rate of matrices, which is what the last layer is; `None` takes `sgd_lr`.
        sgd_momentum: Momentum of the other parameters, 0 to below 1.
        sgd_weight_decay: Decay of the other parameters, added to their gradients.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        nesterov: bool = True,  # noqa: FBT001, FBT002  # in torch's optimizers it has this place
        ns_steps: int = 5,
        *,
        normalize_kernels: bool = False,
        sgd_lr: float = 0.05,
        head_lr: float | None = None,
        sgd_momentum: float = 0.9,
        sgd_weight_decay: float = 5e-4,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "normalize_kernels": normalize_kernels,
            "sgd_lr": sgd_lr,
            "head_lr": head_lr,
            "sgd_momentum": sgd_momentum,
            "sgd_weight_decay": sgd_weight_decay,
        }
        for name, value in defaults.items():
            below = 1 if name.endswith("momentum") else float("inf")
            if value is not None and not 0 <= value < below:
                raise ValueError(f"{name} is {value}, it must be in 0..{below}")
        if ns_steps < 1:
            raise ValueError(f"ns_steps is {ns_steps}, it must be at least 1")
        sgd: dict[str, Any] = {
            "momentum": sgd_momentum,
            "weight_decay": sgd_weight_decay,
            "is_muon": False,
        }
        kinds: dict[str, dict[str, Any]] = {
            "kernel": {"is_muon": True},
            "matrix": {**sgd, "lr": sgd_lr if head_lr is None else head_lr},
            "vector": {**sgd, "lr": sgd_lr},
        }
        super().__init__(_split(params, kinds), defaults)

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
            if moving and group["is_muon"]:
                self._step_kernels(group, moving)
            elif moving:
                directions = self._directions(group, moving, decay=group["weight_decay"])
                torch._foreach_add_(moving, directions, alpha=-group["lr"])
        return loss

    def _directions(
        self, group: dict[str, Any], moving: list[Tensor], *, decay: float
    ) -> list[Tensor]:
        """Where momentum points; `decay` times a parameter is added to its gradient."""
        gradients = [parameter.grad for parameter in moving if parameter.grad is not None]
        if decay:
            gradients = list(torch._foreach_add(gradients, moving, alpha=decay))
        for parameter in moving:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in moving]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        if not group["nesterov"]:
            return buffers
        return list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))

    def _step_kernels(self, group: dict[str, Any], moving: list[Tensor]) -> None:
        directions = self._directions(group, moving, decay=0)
        if group["weight_decay"]:
            torch._foreach_mul_(moving, 1 - group["lr"] * group["weight_decay"])
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for kernel, direction in zip(moving, directions, strict=True):
            if group["normalize_kernels"]:
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm().clamp(min=1e-7))
            matrix = direction.flatten(1)
            alike[tuple(matrix.shape)].append((kernel, matrix))
        # matrices of one shape take one call: a GPU would wait for its next order most of the time
        for (rows, columns), pairs in alike.items():
            steps = orthogonalize(torch.stack([matrix for _, matrix in pairs]), group["ns_steps"])
            size = group["lr"] * max(1, rows / columns) ** 0.5
            for (kernel, _), step in zip(pairs, steps, strict=True):
                kernel.add_(step.reshape(kernel.shape), alpha=-size)


def _split(params: Iterable[Any], kinds: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups by the number of dimensions, each with the settings of its kind; none is empty."""
    given = list(params)
    if not given or not isinstance(given[0], dict):
        given = [{"params": given}]
    groups = []
    for group in given:
        members: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
        for parameter in group["params"]:
            kind = "vector" if parameter.ndim < 2 else "matrix" if parameter.ndim == 2 else "kernel"
            members[kind].append(parameter)
        groups += [
            {**settings, **group, "params": members[kind]}
            for kind, settings in kinds.items()
            if members[kind]
        ]
    return groups
