"""Training images that are mixed with each other, and labels with them."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from cnn_lightning.errors import UserError
from cnn_lightning.randomness import seeded


class Mixing:
    """Mixes each image of a batch with the one before it, the first with the last.

    Both draw l from a Beta(alpha, alpha) once for the batch, and targets become
    l · own + (1 - l) · other. Mixup (Zhang et al. 2018, arXiv:1710.09412, equation 2) mixes the
    images alike, pixel by pixel. CutMix (Yun et al. 2019, arXiv:1905.04899, equations 1 to 3)
    pastes a box of the other image with an area of 1 - l, around a place that is drawn evenly;
    where the border cuts the box off, l is made to fit what is left. The work is torchvision's.

    Args:
        mixup: alpha of mixup, at least 0; 0 = off.
        cutmix: alpha of CutMix, at least 0; 0 = off. With both on, a coin decides for each batch.

    Raises:
        UserError: An alpha is below 0.
    """

    def __init__(self, *, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < float("inf"):
                raise UserError(f"{name} is {alpha}", "give an alpha above 0, such as 0.2 or 1")
        self.names = tuple(name for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha)
        self._kinds: list[v2.Transform] = []
        if mixup:
            self._kinds.append(v2.MixUp(alpha=mixup))
        if cutmix:
            self._kinds.append(v2.CutMix(alpha=cutmix))

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def __call__(self, images: Tensor, targets: Tensor, *key: int | str) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: N×C×H×W float.
            targets: N×K float, rows sum to 1: what each image shows.
            *key: What the draws depend on, and nothing else.

        Returns:
            Images N×C×H×W in the same order in memory, and targets N×K whose rows sum to 1.
        """
        is_last = images.is_contiguous(memory_format=torch.channels_last)
        with seeded(*key):  # torchvision draws from torch's global generator
            chosen = int(torch.randint(len(self._kinds), ()))
            mixed, mixed_targets = self._kinds[chosen](images, targets)
        layout = torch.channels_last if is_last else torch.contiguous_format
        return mixed.contiguous(memory_format=layout), mixed_targets
