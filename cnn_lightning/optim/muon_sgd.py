"""Muon with SGD for what is no kernel, as airbench94_muon trains."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.sgd import sgd
from typing_extensions import override

from cnn_lightning.optim.muon import (
    KERNELS,
    MuonBase,
    check_ranges,
    muon_settings,
    split_by_dimensions,
)


class MuonSGD(MuonBase):
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
        muon = muon_settings(lr, momentum, weight_decay, nesterov, ns_steps, normalize_kernels)
        linear_lr = sgd_lr if linear_lr is None else linear_lr
        check_ranges(
            sgd_lr=(sgd_lr, math.inf),
            linear_lr=(linear_lr, math.inf),
            sgd_momentum=(sgd_momentum, 1),
            sgd_weight_decay=(sgd_weight_decay, math.inf),
        )
        if sgd_momentum == 0:
            raise ValueError("sgd_momentum is 0, and Nesterov's momentum must be above it")
        vectors = {"lr": sgd_lr, "momentum": sgd_momentum, "weight_decay": sgd_weight_decay}
        matrices = {**vectors, "lr": linear_lr}
        kinds = [(muon, KERNELS), (matrices, (2,)), (vectors, (0, 1))]
        super().__init__(split_by_dimensions(params, kinds), {})

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
