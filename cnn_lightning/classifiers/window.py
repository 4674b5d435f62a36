"""What training has seen since it was last logged."""

from typing import cast

import lightning as L
import torch
from torch import Tensor


class TrainingWindow:
    """Loss and right answers of all training images since the last logging, of this process.

    On the device of the training, in float64; nothing waits for it between two loggings.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)  # of losses, of right answers, of images

    @property
    def is_empty(self) -> bool:
        """Whether no image was seen."""
        return not self._sums[2] > 0

    def add(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """Count in a batch.

        Args:
            loss: Mean over the images, a scalar.
            correct: How many were classified right, a scalar.
            count: Images.
        """
        if self._sums.device != loss.device:
            self._sums = self._sums.to(loss.device)
        # no tensor is made of the count: to copy it to a GPU is to wait for the GPU
        loss_sum, correct_sum, images = self._sums.unbind()
        loss_sum.add_(loss.detach(), alpha=count)
        correct_sum.add_(correct)
        images.add_(count)

    def take_means(self, trainer: L.Trainer) -> tuple[float, float]:
        """Mean loss and share of right answers over all processes; then it begins anew."""
        sums = self._sums
        if trainer.world_size > 1:
            sums = cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        loss_sum, correct, count = sums.tolist()
        self._sums = torch.zeros_like(self._sums)
        return loss_sum / count, correct / count

    def gather(self, trainer: L.Trainer | None) -> list[list[float]]:
        """The three sums of each process, for a checkpoint."""
        if trainer is None or trainer.world_size == 1:
            return [self._sums.tolist()]
        sums = torch.zeros(trainer.world_size, 3, dtype=torch.float64)
        sums = sums.to(trainer.strategy.root_device)
        sums[trainer.global_rank] = self._sums
        gathered = cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        return cast(list[list[float]], gathered.tolist())

    def restore(self, rows: list[list[float]] | list[float], trainer: L.Trainer | None) -> None:
        """Go on with what this process has summed, or with others if they were more or fewer.

        Args:
            rows: What `gather` gave; checkpoints of one process once had its row by itself.
            trainer: Knows how many processes there are now.
        """
        sums = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
        rank, size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        if len(sums) == size:
            self._sums = sums[rank]
        else:
            self._sums = sums.sum(0) if rank == 0 else torch.zeros_like(sums[0])
