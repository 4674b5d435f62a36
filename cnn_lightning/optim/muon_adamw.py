"""Muon with AdamW for what is no kernel."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from typing_extensions import override

from cnn_lightning.optim.muon import (
    KERNELS,
    MuonBase,
    check_ranges,
    muon_settings,
    split_by_dimensions,
)


class MuonAdamW(MuonBase):
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
        muon = muon_settings(lr, momentum, weight_decay, nesterov, ns_steps, normalize_kernels)
        beta1, beta2 = adam_betas
        check_ranges(adam_lr=(adam_lr, math.inf), adam_weight_decay=(adam_weight_decay, math.inf))
        for beta in (beta1, beta2):
            check_ranges(adam_betas=(beta, 1))
        adam = {
            "lr": adam_lr,
            "betas": [beta1, beta2],
            "weight_decay": adam_weight_decay,
            "eps": 1e-8,
        }
        super().__init__(split_by_dimensions(params, [(muon, KERNELS), (adam, (0, 1, 2))]), {})

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
