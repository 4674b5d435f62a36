"""Training on small images first, which is quick, and on whole ones later."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cnn_lightning.errors import UserError

# sizes differ by so many pixels: each new one costs the first batch that has it some time
_STEP = 4


@dataclass(frozen=True)
class ProgressiveSize:
    """The size of training images over a run: it rises evenly from `start` to the whole size.

    Progressive resizing (Howard 2018, fast.ai's entry to DAWNBench; Tan and Le 2021,
    arXiv:2104.00298, 4.2): a network learns coarse things from few pixels, at a fraction of the
    arithmetic. Validation always sees whole images.

    Args:
        start: Height and width at first, in pixels, or the longer of them; `None` leaves all
            images whole.
        whole_from: Part of the run after which images are whole, above 0 and at most 1.

    Raises:
        UserError: A number is out of its range.
    """

    start: int | None = None
    whole_from: float = 0.67

    def __post_init__(self) -> None:
        if self.start is not None and self.start < 1:
            raise UserError(f"start_size is {self.start}", "give a number of pixels, or null")
        if not 0 < self.whole_from <= 1:
            raise UserError(
                f"whole_size_from is {self.whole_from}", "give a share of the run: 0..1"
            )

    def side(self, whole: int, progress: float) -> int:
        """Height and width, or the longer of them, at a place in the run.

        Args:
            whole: That of whole images.
            progress: Part of the run that has passed, 0..1.

        Example:
            >>> [ProgressiveSize(20, 0.75).side(32, progress / 4) for progress in range(5)]
            [20, 24, 28, 32, 32]
        """
        if self.start is None or self.start >= whole or progress >= self.whole_from:
            return whole
        num_sizes = -(-(whole - self.start) // _STEP)
        return self.start + _STEP * int(progress / self.whole_from * num_sizes)

    def __call__(self, images: Tensor, progress: float) -> Tensor:
        """Make a batch smaller, as its place in the run has it.

        Args:
            images: N×C×H×W float.
            progress: Part of the run that has passed, 0..1.

        Returns:
            N×C×S×T of the same dtype, proportions and order in memory, resized bilinearly with
            antialiasing.
        """
        whole = max(images.shape[2:])
        side = self.side(whole, progress)
        if side == whole:
            return images
        size = [max(1, round(length * side / whole)) for length in images.shape[2:]]
        is_last = images.is_contiguous(memory_format=torch.channels_last)
        smaller = F.interpolate(images, size, mode="bilinear", antialias=True)
        return smaller.contiguous(
            memory_format=torch.channels_last if is_last else torch.contiguous_format
        )
