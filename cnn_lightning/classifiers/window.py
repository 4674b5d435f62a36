"""What training has seen since it was last logged, and how it is told."""

from collections.abc import Mapping
from typing import cast

import lightning as L
import torch
from torch import Tensor

from cnn_lightning.classifiers.interfaces import CountedBatches

_MAX_UNREAD = 1 << 16  # images: 1 MB of answers and labels
# batches, on a CPU: kept longer, each may lie amid what a step has freed, where the next one then
# finds no room
_MAX_UNREAD_ON_CPU = 16


class TrainingWindow:
    """Loss and right answers of all training images since the last logging, of this process.

    What a step gives is kept on its device as it comes, and read together later: no GPU waits
    between two loggings, and in a small network's step every operation counts, however small.

    Attributes:
        rate: The learning rate of the last batch.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._loss = 0.0  # summed over images
        self._correct = 0
        self._images = 0
        self._unread: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_unread = 0

    @property
    def is_empty(self) -> bool:
        """Whether no image was seen."""
        return self._images + self._num_unread == 0

    def add(self, loss: Tensor, answers: Tensor, labels: Tensor) -> None:
        """Count in a batch.

        Args:
            loss: Mean over the images, a scalar.
            answers: The class that each image was taken for, N int64.
            labels: The class of each image, N int64.
        """
        self._unread.append((loss.detach(), answers, labels))
        self._num_unread += len(labels)
        # not so soon on a GPU, which each reading waits for
        if self._num_unread > _MAX_UNREAD or (
            len(self._unread) == _MAX_UNREAD_ON_CPU and loss.is_cpu
        ):
            self._read()

    def _read(self) -> None:
        if not self._unread:
            return
        losses, answers, labels = zip(*self._unread, strict=True)
        self._correct += int((torch.cat(answers) == torch.cat(labels)).sum())
        for loss, batch in zip(torch.stack(losses).tolist(), labels, strict=True):
            self._loss += loss * len(batch)
        self._images += self._num_unread
        self._unread, self._num_unread = [], 0

    def _sums(self) -> Tensor:
        """Of losses, of right answers, of images: 3 float64."""
        self._read()
        return torch.tensor([self._loss, self._correct, self._images], dtype=torch.float64)

    def take_means(self, trainer: L.Trainer) -> tuple[float, float]:
        """Mean loss and share of right answers over all processes; then it begins anew."""
        sums = self._sums()
        if trainer.world_size > 1:
            sums = sums.to(trainer.strategy.root_device)
            sums = cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        self._loss, self._correct, self._images = 0.0, 0, 0
        loss, correct, images = sums.tolist()
        return loss / images, correct / images

    def gather(self, trainer: L.Trainer | None) -> list[list[float]]:
        """The three sums of each process, for a checkpoint."""
        if trainer is None or trainer.world_size == 1:
            return [self._sums().tolist()]
        sums = torch.zeros(trainer.world_size, 3, dtype=torch.float64)
        sums[trainer.global_rank] = self._sums()
        sums = sums.to(trainer.strategy.root_device)
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
            own = sums[rank]
        else:
            own = sums.sum(0) if rank == 0 else torch.zeros_like(sums[0])
        loss, correct, images = own.tolist()
        self._loss, self._correct, self._images = loss, int(correct), int(images)
        self._unread, self._num_unread = [], 0


def ends_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer steps after a batch, and does not only gather gradients.

    Args:
        trainer: Says how many batches a step has, and an epoch.
        batch_idx: Which batch of the epoch, counted from 0.
    """
    batches = batch_idx + 1
    is_whole = batches % trainer.accumulate_grad_batches == 0
    return is_whole or batches == trainer.num_training_batches


def scale_of_part(loader: object, batch_idx: int, parts: int, num_batches: float) -> float:
    """What the mean loss of a step's part is times, so that those of all parts make up the step's.

    Each is divided by `parts`, as Lightning does. That alone is right where a step has so many of
    one size, which the last step of an epoch may not.

    Args:
        loader: Where the parts come from; those of a loader that cannot tell their sizes are taken
            to be equal.
        batch_idx: Which part of the epoch, counted from 0.
        parts: Of a step, at most (`accumulate_grad_batches`).
        num_batches: Parts of the epoch.

    Example:
        >>> scale_of_part(None, batch_idx=8, parts=4, num_batches=10)
        2.0
    """
    first = batch_idx - batch_idx % parts
    if parts == 1 or first + parts < num_batches:
        return 1.0
    of_step = range(first, min(first + parts, int(num_batches)))
    if not isinstance(loader, CountedBatches):
        return parts / len(of_step)
    return parts * loader.num_images_in(batch_idx) / sum(map(loader.num_images_in, of_step))


def is_logged(trainer: L.Trainer, steps: int) -> bool:
    """Whether an optimizer step is one that is logged.

    Args:
        trainer: Says how often; 0 = only at an epoch's end, which is for its callers to see to.
        steps: How many steps there are with it.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set at run time
    return every > 0 and steps % every == 0


def tell(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Put numbers of training where progress bars and callbacks look, from now to the next time.

    As `LightningModule.log(..., prog_bar=True, logger=False)` does, which takes 2 ms each time and
    has Lightning gather its metrics anew at every step after it.
    """
    trainer.callback_metrics.update({name: torch.tensor(one) for name, one in metrics.items()})
    trainer.progress_bar_metrics.update(metrics)
