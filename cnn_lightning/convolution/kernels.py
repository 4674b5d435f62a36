"""Known kernels, by name."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cnn_lightning.errors import UserError

# written as they lie on the image: rows downwards, columns to the right
KERNELS: dict[str, Tensor] = {
    "identity": torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    # the mean of nine pixels
    "box_blur": torch.ones(3, 3) / 9,
    # the binomial numbers 1 2 1, down and across, which tend to Gauss's curve
    "gaussian": torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16,
    # the image less its Laplacian (Gonzalez and Woods, Digital Image Processing, 3.6)
    "sharpen": torch.tensor([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    # Sobel and Feldman 1968: above 0 where the image grows brighter to the right
    "sobel_x": torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    # the same downwards
    "sobel_y": torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]),
    # second differences, down plus across (Gonzalez and Woods, 3.6)
    "laplacian": torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    # as on https://setosa.io/ev/image-kernels
    "emboss": torch.tensor([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]]),
}


def as_kernel(kernel: str | Tensor | Sequence[Sequence[float]]) -> Tensor:
    """A kernel by its name or its numbers.

    Args:
        kernel: A name of `KERNELS`, or a matrix of finite numbers.

    Returns:
        A new float32 matrix.

    Raises:
        UserError: There is no kernel of that name, or the numbers are no finite matrix.

    Example:
        >>> as_kernel("laplacian").tolist()
        [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]
    """
    if isinstance(kernel, str):
        if kernel not in KERNELS:
            raise UserError(
                f"there is no kernel {kernel!r}",
                f"use one of {', '.join(KERNELS)}, or numbers of your own",
            )
        return KERNELS[kernel].clone()
    lengths = [] if isinstance(kernel, Tensor) else [np.size(row) for row in kernel]
    if len(set(lengths)) > 1:
        raise UserError(
            f"the rows of the kernel have {', '.join(map(str, lengths))} numbers",
            "give every row as many",
        )
    numbers = torch.as_tensor(kernel).detach().to(torch.float32, copy=True)
    if numbers.ndim != 2 or not numbers.numel():
        raise UserError(
            f"a kernel of shape {tuple(numbers.shape)} is no matrix", "give rows of numbers"
        )
    if not numbers.isfinite().all():
        raise UserError("the kernel holds numbers that are not finite", "use smaller numbers")
    return numbers
