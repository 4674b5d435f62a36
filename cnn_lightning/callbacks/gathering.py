"""What all batches of an evaluation gave, of all processes together."""

from typing import Any, Generic, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

Outputs = TypeVar("Outputs", bound=tuple[Tensor, ...])


class GatheredOutputs(Generic[Outputs]):
    """Collects what is known of each image on the CPU, batch by batch, then from all processes.

    Args:
        kind: What is collected: a named tuple of tensors with one row per image, among them
            `indices`.
    """

    def __init__(self, kind: type[Outputs]) -> None:
        self._kind: Any = kind
        self._parts: list[list[Tensor]] = []

    def clear(self) -> None:
        """Forget everything."""
        self._parts = []

    def add(self, output: Outputs) -> None:
        """Keep what is known of the images of one batch."""
        self._parts.append([tensor.cpu() for tensor in output])

    def gather(self) -> Outputs | None:
        """All images in the order of their indices; every process must call it.

        Returns:
            What was collected, which is then forgotten; `None` in every process but the first, and
            if there is nothing.
        """
        mine = [torch.cat(column) for column in zip(*self._parts, strict=True)]
        self.clear()
        # a process may have had nothing to do
        gathered = [columns for columns in gather_to_first(mine) if columns]
        if not gathered:
            return None
        everything = self._kind(*(torch.cat(column) for column in zip(*gathered, strict=True)))
        order = everything.indices.argsort()
        return cast(Outputs, self._kind(*(column[order] for column in everything)))


def gather_to_first(mine: Any) -> list[Any]:
    """What each process has, in the first process; nothing in the others. All must call it."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [mine]
    # over gloo, which stays on the CPU: NCCL would send all of it through the GPUs' memory
    group: Any = dist.new_group(backend="gloo")
    try:
        parts: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(mine, parts, dst=0, group=group)
    finally:
        dist.destroy_process_group(group)
    return parts or []
