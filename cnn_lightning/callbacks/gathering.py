"""What all batches of an evaluation gave, of all processes together."""

from typing import Any

import torch
import torch.distributed as dist

from cnn_lightning.classifiers.interfaces import StepOutput


class GatheredOutputs:
    """Collects `StepOutput`s on the CPU, batch by batch, and then from all processes."""

    def __init__(self) -> None:
        self._parts: list[StepOutput] = []

    def clear(self) -> None:
        """Forget everything."""
        self._parts = []

    def add(self, output: Any) -> None:
        """Keep what a step returned for one batch."""
        self._parts.append(StepOutput(*(tensor.cpu() for tensor in output)))

    def gather(self) -> StepOutput | None:
        """All images in the order of their indices; every process must call it.

        Returns:
            What was collected, which is then forgotten; `None` in every process but the first, and
            if there is nothing.
        """
        mine = [torch.cat(column) for column in zip(*self._parts, strict=True)]
        self.clear()
        gathered: list[Any] | None = [mine]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            gathered = _gather_to_first(mine)
        if not gathered or not all(gathered):
            return None
        probabilities, labels, indices = (
            torch.cat(column) for column in zip(*gathered, strict=True)
        )
        order = indices.argsort()
        return StepOutput(probabilities[order], labels[order], indices[order])


def _gather_to_first(mine: list[torch.Tensor]) -> list[Any] | None:
    # over gloo, which stays on the CPU: NCCL would send all of it through the GPUs' memory
    group: Any = dist.new_group(backend="gloo")
    try:
        parts: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(mine, parts, dst=0, group=group)
    finally:
        dist.destroy_process_group(group)
    return parts
