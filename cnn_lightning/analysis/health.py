"""How the layers of a network fare: spread, dead units, saturated units."""

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cnn_lightning.analysis.activations import evaluating, listening
from cnn_lightning.analysis.layers import RECTIFIERS

# |tanh| above 0.97 passes back less than 6 % of a gradient: 1 - 0.97 ** 2
SATURATED = 0.97
NUM_BINS = 50
# values, on a CPU: what is counted of them takes several times their memory, and fits its caches
_MAX_AT_ONCE = 2**18


@dataclass
class LayerStatistics:
    """Statistics of a layer's outputs over all images, gathered batch by batch.

    Attributes:
        count: Values seen.
        total: Their sum.
        squares: The sum of their squares.
        active: Per unit, whether it was ever above 0; `None` where units cannot die. A unit is a
            channel of a convolution (all its places share one kernel) or one feature of a vector.
        num_saturated: Values beyond ±0.97; `None` where values do not saturate there.
        lowest: The least value.
        highest: The greatest value.
        bins: Counts of values in equal bins from the first batch's least to its greatest value;
            later values beyond are counted in the outer bins.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    active: Tensor | None = None
    num_saturated: int | None = None
    lowest: float = float("inf")
    highest: float = float("-inf")
    bins: Tensor = field(default_factory=lambda: torch.zeros(NUM_BINS))
    _range: tuple[float, float] = (0.0, 0.0)

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self.total / self.count

    @property
    def std(self) -> float:
        """Standard deviation of all values, over N."""
        return math.sqrt(max(self.squares / self.count - self.mean**2, 0.0))

    @property
    def dead(self) -> float | None:
        """Share 0..1 of units that were never above 0 on any image; `None` if they cannot die."""
        return None if self.active is None else 1 - float(self.active.double().mean())

    @property
    def saturated(self) -> float | None:
        """Share 0..1 of values with a magnitude above 0.97; `None` for other functions."""
        return None if self.num_saturated is None else self.num_saturated / self.count

    @property
    def edges(self) -> Tensor:
        """The 51 limits of the bins, ascending."""
        return torch.linspace(*self._range, NUM_BINS + 1)

    def add(self, outputs: Tensor, layer: nn.Module) -> None:
        """Count a batch in.

        Args:
            outputs: N×F, N×F×H×W or the like, of any floating dtype, on any device.
            layer: What put them out.
        """
        outputs = outputs.detach()
        values = _in_order_of_memory(outputs)
        lowest, highest = (float(value) for value in values.aminmax())
        if not self.count:
            self._range = (lowest, highest) if highest > lowest else (lowest - 0.5, lowest + 0.5)
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        if isinstance(layer, RECTIFIERS):
            units = outputs.amax([dim for dim in range(outputs.dim()) if dim != 1]) > 0
            self.active = units if self.active is None else self.active | units
        # on a GPU at once: each part would wait for it
        at_once = _MAX_AT_ONCE if values.device.type == "cpu" else values.numel()
        for part in torch.split(values, at_once):
            self._count(part.float(), may_saturate=isinstance(layer, nn.Tanh))

    def _count(self, values: Tensor, *, may_saturate: bool) -> None:
        self.count += values.numel()
        # about the mean of these, or float32 would lose a small spread around a large mean
        mean = float(values.mean())
        self.total += mean * values.numel()
        variance = float((values - mean).square_().mean())
        self.squares += (variance + mean**2) * values.numel()
        self.bins += self._count_bins(values)
        if may_saturate:
            self.num_saturated = (self.num_saturated or 0) + int((values.abs() > SATURATED).sum())

    def _count_bins(self, values: Tensor) -> Tensor:
        """How many values each bin holds; what is no number goes into the first."""
        first, last = self._range
        places = (values - first).mul_(NUM_BINS / (last - first))
        places = places.clamp_(0, NUM_BINS - 1).nan_to_num_(0).to(torch.uint8)
        # on the CPU: a GPU refuses when it has to be deterministic
        return torch.bincount(places.cpu(), minlength=NUM_BINS)


def _in_order_of_memory(outputs: Tensor) -> Tensor:
    """All values in one row, n, a view where they lie without gaps.

    To go through them as they lie is up to 40 times as fast (`aminmax` of 5×64×224×224 in
    `channels_last`: 2 ms in place of 84, on two cores).
    """
    by_stride = sorted(range(outputs.dim()), key=outputs.stride, reverse=True)
    return outputs.permute(by_stride).flatten()


def measure_layers(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Tensor],
    precision: Any = None,
) -> dict[str, LayerStatistics]:
    """Run a network over some images, in eval mode, and gather statistics of its layers' outputs.

    Args:
        network: Takes each of `batches`.
        layers: Layers of it by name, as `select_layers` gives them.
        batches: N×C×H×W float each, prepared for the network, on its device.
        precision: A context to run in, such as autocast.

    Returns:
        Statistics by layer in the order of the calls; a layer that is called twice for an image has
        `name` and `name#2`.
    """
    found: dict[str, LayerStatistics] = {}

    def count(name: str, output: Tensor) -> None:
        found.setdefault(name, LayerStatistics()).add(output, layers[name.partition("#")[0]])

    with evaluating(network), precision or nullcontext():
        for images in batches:
            with listening(layers, count):
                network(images)
    return found
