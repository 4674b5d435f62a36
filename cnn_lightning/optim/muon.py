"""Muon: steps of momentum that are orthogonal matrices."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd
from typing_extensions import override

# of the quintic polynomial: Jordan et al. 2024, kellerjordan.github.io/posts/muon
_QUINTIC = (3.4445, -4.7750, 2.0315)
# how many dimensions kernels have, of convolutions over lines, images and volumes
_KERNELS = (3, 4, 5)


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


class _Muon(Optimizer, ABC):
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
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for kernel, direction in zip(moving, self._directions(group, moving), strict=True):
            matrix = direction.flatten(1)
            alike[tuple(matrix.shape)].append((kernel, matrix))
        # matrices of one shape take one call: a GPU would wait for its next order most of the time
        for (rows, columns), pairs in alike.items():
            steps = orthogonalize(torch.stack([matrix for _, matrix in pairs]), group["ns_steps"])
            size = group["lr"] * max(1, rows / columns) ** 0.5
            for (kernel, _), step in zip(pairs, steps, strict=True):
                kernel.add_(step.reshape(kernel.shape), alpha=-size)

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


class MuonAdamW(_Muon):
    """Muon for the kernels of convolutions, AdamW for everything else.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) orthogonalises what momentum makes
    of the gradient, each kernel O×I×h×w seen as a matrix O×Ihw, and scales a step by
    sqrt(max(1, rows / columns)). Biases, norms and fully connected layers are trained by torch's
    AdamW, with a rate of their own; a schedule scales both alike.

    Args:
        params: Parameters, or groups of them; what a group says of `weight_decay` holds.
        lr: Rate of the kernels.
        momentum: Momentum of the kernels, 0 to below 1.
        weight_decay: Decay of the kernels, which shrink by lr · weight_decay a step.
        nesterov: Whether this momentum is Nesterov's.
        ns_steps: Newton–Schulz iterations.
        normalize_kernels: Whether each kernel is scaled to the norm sqrt(O) before each step, as
            in airbench94_muon (github.com/KellerJordan/cifar10-airbench).
        adam_lr: Rate of the other parameters.
        adam_betas: How slowly AdamW's means of gradients and of their squares move, 0 to below 1.
        adam_weight_decay: Decay of the other parameters.

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
        adam_lr: float = 1e-3,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_weight_decay: float = 0.0,
    ) -> None:
        muon = _muon_settings(lr, momentum, weight_decay, nesterov, ns_steps, normalize_kernels)
        beta1, beta2 = adam_betas
        _check_ranges(adam_lr=(adam_lr, math.inf), adam_weight_decay=(adam_weight_decay, math.inf))
        for beta in (beta1, beta2):
            _check_ranges(adam_betas=(beta, 1))
        adam = {
            "lr": adam_lr,
            "betas": [beta1, beta2],
            "weight_decay": adam_weight_decay,
            "eps": 1e-8,
        }
        super().__init__(_split(params, [(muon, _KERNELS), (adam, (0, 1, 2))]), {})

    @override
    def _step_others(
        self, group: dict[str, Any], moving: list[Tensor], gradients: list[Tensor]
    ) -> None:
        for parameter in moving:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in moving]
        adamw(
            moving,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


class MuonSGD(_Muon):
    """Muon for the kernels of convolutions, SGD with Nesterov momentum for everything else.

    As airbench94_muon trains (github.com/KellerJordan/cifar10-airbench), where biases want rates
    thousands of times those of the fully connected layer. `MuonAdamW` says what Muon is; a schedule
    scales all three rates alike.

    Args:
        params: Parameters, or groups of them; what a group says of `weight_decay` holds.
        lr: Rate of the kernels.
        momentum: Momentum of the kernels, 0 to below 1.
        weight_decay: Decay of the kernels, which shrink by lr · weight_decay a step.
        nesterov: Whether this momentum is Nesterov's; that of the others always is.
        ns_steps: Newton–Schulz iterations.
        normalize_kernels: Whether each kernel is scaled to the norm sqrt(O) before each step.
        sgd_lr: Rate of biases and norms.
        linear_lr: Rate of fully connected layers; `None` takes `sgd_lr`.
        sgd_momentum: Momentum of all but kernels, above 0 and below 1.
        sgd_weight_decay: Decay of all but kernels, added to their gradients.

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
        linear_lr: float | None = None,
        sgd_momentum: float = 0.9,
        sgd_weight_decay: float = 0.0,
    ) -> None:
        muon = _muon_settings(lr, momentum, weight_decay, nesterov, ns_steps, normalize_kernels)
        linear_lr = sgd_lr if linear_lr is None else linear_lr
        _check_ranges(
            sgd_lr=(sgd_lr, math.inf),
            linear_lr=(linear_lr, math.inf),
            sgd_momentum=(sgd_momentum, 1),
            sgd_weight_decay=(sgd_weight_decay, math.inf),
        )
        if sgd_momentum == 0:
            raise ValueError("sgd_momentum is 0, and Nesterov's momentum must be above it")
        vectors = {"lr": sgd_lr, "momentum": sgd_momentum, "weight_decay": sgd_weight_decay}
        matrices = {**vectors, "lr": linear_lr}
        kinds = [(muon, _KERNELS), (matrices, (2,)), (vectors, (0, 1))]
        super().__init__(_split(params, kinds), {})

    @override
    def _step_others(
        self, group: dict[str, Any], moving: list[Tensor], gradients: list[Tensor]
    ) -> None:
        buffers = [self.state[parameter].get("momentum_buffer") for parameter in moving]
        sgd(
            moving,
            gradients,
            buffers,
            has_sparse_grad=False,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=True,
            maximize=False,
        )
        for parameter, buffer in zip(moving, buffers, strict=True):
            self.state[parameter]["momentum_buffer"] = buffer


def _normalize(kernels: list[Tensor]) -> None:
    """Scale each kernel O×I×… to the norm sqrt(O), in place."""
    scales = torch._foreach_norm(kernels)
    torch._foreach_clamp_min_(scales, 1e-7)
    torch._foreach_reciprocal_(scales)
    torch._foreach_mul_(scales, [len(kernel) ** 0.5 for kernel in kernels])
    for kernel, scale in zip(kernels, scales, strict=True):
        kernel.mul_(scale)


def _muon_settings(
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,  # noqa: FBT001  # passed on as it came
    ns_steps: int,
    normalize_kernels: bool,  # noqa: FBT001
) -> dict[str, Any]:
    """What the group of the kernels says."""
    _check_ranges(lr=(lr, math.inf), momentum=(momentum, 1), weight_decay=(weight_decay, math.inf))
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


def _check_ranges(**ranges: tuple[float, float]) -> None:
    """Refuse values that are not in 0 to below a limit, each given as (value, limit)."""
    for name, (value, below) in ranges.items():
        if not 0 <= value < below:
            raise ValueError(f"{name} is {value}, it must be in 0..{below}")


def _split(
    params: Iterable[Any], kinds: Sequence[tuple[dict[str, Any], Sequence[int]]]
) -> list[dict[str, Any]]:
    """Groups of parameters of one kind each; none is empty.

    Args:
        params: Parameters, or groups of them.
        kinds: The settings of each kind, and how many dimensions its parameters have.
    """
    given = list(params)
    if not given or not isinstance(given[0], dict):
        given = [{"params": given}]
    groups = []
    for group in given:
        for settings, dimensions in kinds:
            members = [one for one in group["params"] if one.ndim in dimensions]
            if members:
                groups.append({**settings, **group, "params": members})
    return groups
