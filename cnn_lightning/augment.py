"""Random changes of training images, a whole batch at a time, and the views of test images.

`pad_and_crop`, `flip_horizontally` and `crop_and_flip` do what they are told, `Augmentation` draws
first. Draws are made on the CPU, so that they do not depend on the device of the images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from cnn_lightning.randomness import coin_flips

Border = Literal["zeros", "reflect"]
"""What comes in at the border of a moved image: zeros, or what lies inside, mirrored."""

Views = Literal["none", "flip", "flip_shift"]
"""How often `average_views` looks at an image: once, twice or six times."""


def pad_and_crop(images: Tensor, offsets: Tensor, padding: int, border: Border = "zeros") -> Tensor:
    """Move each image by its own offset.

    The "pad 4, crop 32" of He et al. 2016 (arXiv:1512.03385, 4.2), in one gather for the batch.

    Args:
        images: N×C×H×W, any dtype.
        offsets: N×2 int64, rows then columns, each in 0..2·padding; `padding` means no move.
        padding: Pixels added on each side, at least 0; below H and W if they are reflected.
        border: What comes in at the border.

    Returns:
        N×C×H×W with the dtype and device of `images`, contiguous.

    Raises:
        ValueError: `offsets` is not N×2, or lies outside its range (looked at on the CPU only:
            a look at the GPU would make the program wait for it), or the padding is too wide.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> pad_and_crop(image, torch.tensor([[2, 1]]), padding=1)[0, 0]
        tensor([[2., 3.],
                [0., 0.]])
    """
    if offsets.shape != (len(images), 2):
        raise ValueError(f"offsets must be {len(images)}×2, these are {tuple(offsets.shape)}")
    if offsets.device.type == "cpu" and ((offsets < 0) | (offsets > 2 * padding)).any():
        raise ValueError(f"offsets must lie in 0..{2 * padding}")
    if _is_for_numpy(images):
        return _copy_windows(images, offsets, padding, border)
    columns = torch.arange(images.shape[3], device=images.device)
    return _gather(images, offsets, columns, padding, border)


def flip_horizontally(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror the chosen images left to right.

    Args:
        images: N×C×H×W, any dtype.
        mask: N bool, true for the images to mirror.

    Returns:
        N×C×H×W with the dtype and device of `images`.

    Raises:
        ValueError: `mask` is not N bool.

    Example:
        >>> images = torch.tensor([[1, 2], [3, 4]]).reshape(2, 1, 1, 2)
        >>> flip_horizontally(images, torch.tensor([True, False])).flatten(1)
        tensor([[2, 1],
                [3, 4]])
    """
    if mask.shape != (len(images),) or mask.dtype != torch.bool:
        raise ValueError(f"mask must be {len(images)} bool, it is {tuple(mask.shape)} {mask.dtype}")
    # on a CPU six times as fast as a torch.where over all values
    both = torch.cat([images, images.flip(3)])
    chosen = torch.arange(len(images)) + len(images) * mask
    return both.index_select(0, chosen.to(images.device, non_blocking=True))


def crop_and_flip(
    images: Tensor, offsets: Tensor, mask: Tensor, padding: int, border: Border = "zeros"
) -> Tensor:
    """`pad_and_crop`, then `flip_horizontally`, on a GPU in one gather.

    Args:
        images: N×C×H×W, any dtype.
        offsets: N×2 int64, as for `pad_and_crop`.
        mask: N bool, true for the images to mirror.
        padding: Pixels added on each side, at least 0; below H and W if they are reflected.
        border: What comes in at the border.

    Returns:
        N×C×H×W with the dtype and device of `images`, contiguous.

    Raises:
        ValueError: The padding is too wide.
    """
    if _is_for_numpy(images):
        return flip_horizontally(_copy_windows(images, offsets, padding, border), mask)
    mask = mask.to(images.device, non_blocking=True)
    columns = torch.arange(images.shape[3], device=images.device)
    columns = torch.where(mask[:, None], columns.flip(0), columns)  # N×W
    return _gather(images, offsets, columns, padding, border)


@dataclass(frozen=True)
class Augmentation:
    """Move and mirror images at random.

    Moving by up to `padding` pixels and mirroring half of the images is the usual augmentation of
    CIFAR-10 (He et al. 2016, arXiv:1512.03385, 4.2). With `alternating` flips (Jordan 2024,
    arXiv:2404.00498, 3.6) chance decides in epoch 0 alone: an image that was mirrored there is
    mirrored in every even epoch, the others in every odd one, so that any two epochs in a row show
    each image both ways.

    Args:
        flip: Which images are mirrored: none, each with probability 1/2, or by turns.
        padding: Images move by up to so many pixels each way, at least 0.
        border: What comes in at the border.
    """

    flip: Literal["none", "random", "alternating"] = "none"
    padding: int = 0
    border: Border = "zeros"

    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        *,
        indices: Tensor | None = None,
        epoch: int = 0,
        seed: int = 0,
        num_images: int | None = None,
    ) -> Tensor:
        """Change a batch.

        Args:
            images: N×C×H×W, any dtype.
            generator: CPU generator; moves are drawn first, then random flips.
            indices: N int64, each image's place in the data set; alternating flips need them.
            epoch: Counted from 0; decides alternating flips together with `seed`.
            seed: Decides what alternating flips do in epoch 0.
            num_images: Size of the data set. Known, alternating flips draw for all of it once.

        Returns:
            N×C×H×W with the dtype and device of `images`.

        Raises:
            ValueError: Alternating flips got no indices, or the padding is too wide.
        """
        offsets = None
        if self.padding:
            offsets = torch.randint(2 * self.padding + 1, (len(images), 2), generator=generator)
        mask = None
        if self.flip == "random":
            mask = torch.randint(2, (len(images),), generator=generator).bool()
        elif self.flip == "alternating":
            if indices is None:
                raise ValueError("alternating flips need the indices of the images")
            mask = _first_flips(indices, seed, num_images) ^ bool(epoch % 2)
        if offsets is None:
            return images if mask is None else flip_horizontally(images, mask)
        if mask is None:
            return pad_and_crop(images, offsets, self.padding, self.border)
        return crop_and_flip(images, offsets, mask, self.padding, self.border)


def average_views(network: Callable[[Tensor], Tensor], images: Tensor, views: Views) -> Tensor:
    """Test-time augmentation: the mean of a network's logits over several views of each image.

    That of airbench (Jordan 2024, arXiv:2404.00498, 3.5). `flip` looks at each image and its mirror
    image; `flip_shift` also at both of them moved by one pixel up and left, and down and right,
    with what comes in reflected at the border. The two unmoved views weigh 1/4 each, the four moved
    ones 1/8.

    Args:
        network: Images to logits N×K, called once for each view.
        images: N×C×H×W float; with `flip_shift`, H and W are at least 2.
        views: `none`, `flip` or `flip_shift`.

    Returns:
        N×K.

    Example:
        >>> images = torch.tensor([[[[1.0, 2.0]]]])
        >>> average_views(lambda images: images[:, 0, 0], images, "flip")
        tensor([[1.5000, 1.5000]])
    """
    if views == "none":
        return network(images)
    logits = (network(images) + network(images.flip(3))) / 2
    if views == "flip":
        return logits
    height, width = images.shape[2:]
    padded = F.pad(images, (1,) * 4, "reflect")
    logits = logits / 2
    for shift in (2, 0):  # up and left, down and right
        moved = padded[:, :, shift : shift + height, shift : shift + width]
        logits = logits + (network(moved) + network(moved.flip(3))) / 8
    return logits


def _first_flips(indices: Tensor, seed: int, num_images: int | None) -> Tensor:
    """Whether alternating flips mirror each image in epoch 0: N bool."""
    if num_images is None:
        return coin_flips(indices, "flip", seed)
    return _all_first_flips(num_images, seed, indices.device)[indices]


# a coin is some fifteen orders to a GPU, at every step
@lru_cache(maxsize=4)
def _all_first_flips(num_images: int, seed: int, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # they outlive the mode that they are first needed in
        return coin_flips(torch.arange(num_images, device=device), "flip", seed)


def _is_for_numpy(images: Tensor) -> bool:
    return images.is_cpu and images.dtype == torch.uint8


def _copy_windows(images: Tensor, offsets: Tensor, padding: int, border: Border) -> Tensor:
    """The moved images, row by row: on a CPU twice as fast as `_gather`, byte by byte."""
    if border == "zeros":
        padded = F.pad(images.contiguous(), (padding,) * 4).numpy()
    else:
        _check_reflection(images, padding)
        sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        padded = np.pad(images.numpy(), sides, mode="reflect")
    windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    windows = windows.transpose(0, 2, 3, 1, 4, 5)  # N×(1+2P)×(1+2P)×C×H×W
    rows, columns = offsets.numpy().T
    return torch.from_numpy(windows[np.arange(len(images)), rows, columns])


def _check_reflection(images: Tensor, padding: int) -> None:
    height, width = images.shape[2:]
    if padding >= min(height, width):
        raise ValueError(f"{padding} pixels cannot be reflected in {height}×{width}")


def _gather(
    images: Tensor, offsets: Tensor, columns: Tensor, padding: int, border: Border
) -> Tensor:
    """The moved images; `columns` (W or N×W) says which column of the window comes where."""
    channels, height, width = images.shape[1:]
    # non_blocking: a plain copy would wait for all that the GPU has yet to do
    offsets = offsets.to(images.device, non_blocking=True)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # N×H
    columns = offsets[:, 1:] + columns  # N×W
    if border == "zeros":
        images_wide, width = F.pad(images, (padding,) * 4), width + 2 * padding
    else:
        _check_reflection(images, padding)
        # what would be read from the padding is read from where it mirrors
        rows, columns = _reflect(rows - padding, height), _reflect(columns - padding, width)
        images_wide = images
    places = (rows * width)[:, :, None] + columns[:, None, :]  # N×H×W
    places = places.flatten(1)[:, None].expand(-1, channels, -1)
    return images_wide.flatten(2).gather(2, places).reshape(images.shape)


def _reflect(places: Tensor, length: int) -> Tensor:
    """Places -length+1..2·length-2 mirrored at 0 and length-1 into 0..length-1."""
    return (length - 1) - ((length - 1) - places.abs()).abs()
