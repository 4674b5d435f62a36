"""Order, sharding and place: which images make up batch k of an epoch, on which process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_lightning.data.sampling import balanced_order
from cnn_lightning.errors import UserError
from cnn_lightning.randomness import permutation


class Batch(NamedTuple):
    """What a loader yields and every step receives.

    Attributes:
        images: N×C×H×W uint8 as read; float32 and normalised once on the device; or the N×F float
            features of a frozen backbone in their place.
        labels: N int64.
        indices: N int64, each image's place in the data set of its split.
        is_features: Whether `images` are features.
        targets: N×K float32 whose rows sum to 1, where images are mixed; then training aims at
            these and not at `labels`.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    is_features: bool = False
    targets: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; the program does not wait until it is there."""
        if self.images.device == device or (device.type == "cpu" and self.images.is_cpu):
            return self
        images, labels, indices = (part.to(device, non_blocking=True) for part in self[:3])
        return Batch(images, labels, indices, self.is_features)


class Features(NamedTuple):
    """Features of a frozen backbone, which stand for the images they were computed from.

    Attributes:
        rows: N×F float, by the indices of the images.
        read: Gives those of some indices n int64, n×F, where all stay where they are; `None` takes
            them from `rows`.
    """

    rows: Tensor
    read: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Sharding:
    """How a sequence of images is cut into batches for one of several processes.

    A global batch is `batch_size` times `world_size` images; each process takes every
    `world_size`-th of it. Every image is seen once and every process has the same number of
    batches, which collective operations need: a last global batch too small to give each process
    `least` images joins the one before it.

    Args:
        num_images: Images in all.
        batch_size: Images per process and batch.
        rank: This process, 0..world_size-1.
        world_size: Processes.
        least: Least images per process and batch; 2 where batch norm trains.

    Raises:
        UserError: There are too few images for one batch.
    """

    num_images: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    least: int = 1

    def __post_init__(self) -> None:
        if self.num_images < self.least * self.world_size:
            raise UserError(
                f"{self.num_images} images are too few for {self.world_size} process(es) with at "
                f"least {self.least} in a batch",
                "add images or use fewer devices",
            )

    def __len__(self) -> int:
        whole, rest = divmod(self.num_images, self.batch_size * self.world_size)
        joins = whole > 0 and rest < self.least * self.world_size
        return whole if joins else whole + 1

    def slice(self, batch: int) -> slice:
        """The places in the sequence that make up one batch of this process."""
        start = batch * self.batch_size * self.world_size
        is_last = batch == len(self) - 1
        stop = self.num_images if is_last else start + self.batch_size * self.world_size
        return slice(start + self.rank, stop, self.world_size)


class ImageLoader:
    """Batches of a data set held in one tensor, on the device that holds it.

    Training order is a function of seed and epoch. The place within the epoch is asked of `place`
    when the first batch is drawn, not remembered: whoever counts the batches (the Trainer, whose
    count is in its checkpoint) is the only one who knows, so a resumed run cannot disagree with it.

    Args:
        images: N×C×H×W uint8.
        labels: N int64.
        indices: The images of this split, M int64.
        sharding: How the images of an epoch are cut into batches.
        features: Gives what is served in place of images, or `None`. Asked for when the first batch
            is drawn: Lightning builds the training loader before there are any.
        move: Gives the images, or the features, where they live: on the device that computes, or
            as they are. Asked for when the first batch is drawn.
        seed: Seed of the order; `None` keeps the order of `indices`.
        place: Gives (epoch, next batch of the epoch).
        balanced: Whether every class is seen equally often, in an order that needs a seed; M then
            is the sum of `balanced_counts`.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        sharding: Sharding,
        *,
        features: Callable[[], Features | None] = lambda: None,
        move: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        seed: int | None = None,
        place: Callable[[], tuple[int, int]] = lambda: (0, 0),
        balanced: bool = False,
    ) -> None:
        self.images = images
        self.labels = labels
        self.indices = indices
        self.sharding = sharding
        self.features = features
        self.move = move
        self.seed = seed
        self.place = place
        self.balanced = balanced

    def __len__(self) -> int:
        return len(self.sharding)

    def num_images_in(self, batch: int) -> int:
        """Images in one batch of an epoch, counted from 0, of this process."""
        return len(range(*self.sharding.slice(batch).indices(self.sharding.num_images)))

    def order(self, epoch: int) -> Tensor:
        """Indices of all images, of all processes, in the order of one epoch: M int64."""
        if self.seed is None:
            return self.indices
        if self.balanced:
            return self.indices[balanced_order(self.labels[self.indices], self.seed, epoch)]
        return self.indices[permutation(len(self.indices), "order", self.seed, epoch)]

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self.place()  # runs when the first batch is drawn: this is a generator
        order = self.order(epoch)
        features = self.features()
        source = self.move(self.images if features is None else features.rows)
        take: Callable[[Tensor], Tensor] = partial(torch.index_select, source, 0)
        if features is not None and features.read is not None and source is features.rows:
            take = features.read
        # so that of a batch nothing crosses the bus, not even its order
        order, labels = order.to(source.device), self.labels.to(source.device)
        for number in range(first, len(self)):
            chosen = order[self.sharding.slice(number)]
            yield Batch(take(chosen), labels[chosen], chosen, features is not None)

    # Lightning warns on a resume in mid-epoch unless a loader has these two; see `place`
    def state_dict(self) -> dict[str, int]:
        """Nothing: the place is the Trainer's to keep."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore."""
