"""Whether a data set lives in the memory of the GPU that trains on it."""

import torch
from torch import Tensor

from cnn_lightning.console import say

# of the memory that is free when training begins; the rest is the network's
_SHARE = 0.25


class Residence:
    """Tensors of a data set on the device that computes, so that no batch crosses the bus.

    Args:
        on_device: `True` puts them there, `False` leaves them where they are, `None` puts them
            on a GPU if a quarter of its free memory holds them.
    """

    def __init__(self, *, on_device: bool | None) -> None:
        self.on_device = on_device
        # by the tensor and the device; the tensor is kept, so that no other gets its id
        self._placed: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def place(self, tensor: Tensor, device: torch.device) -> Tensor:
        """A tensor where it is to live; decided and said once.

        Args:
            tensor: Images uint8 or features float, on the CPU.
            device: The one that computes.
        """
        key = id(tensor), device
        if key not in self._placed:
            self._placed[key] = tensor, self._move(tensor, device)
        return self._placed[key][1]

    def _move(self, tensor: Tensor, device: torch.device) -> Tensor:
        if device == tensor.device:
            return tensor
        num_bytes = tensor.numel() * tensor.element_size()
        wanted = self.on_device
        if wanted is None:
            wanted = device.type == "cuda" and num_bytes <= _SHARE * _free_bytes(device)
        kind = "images" if tensor.dtype == torch.uint8 else "features"
        where = f"in the memory of {device}" if wanted else f"copied to {device} batch by batch"
        say(f"{len(tensor):,} {kind}, {num_bytes / 1e6:,.0f} MB: {where}")
        return tensor.to(device) if wanted else tensor


def _free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0])
