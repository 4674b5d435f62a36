"""Image files to squares of one size: by threads, in order, and never many at a time."""

import math
import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_lightning.errors import UserError
from cnn_lightning.images import Mode, fit_square, read_image

_MAX_CHUNK = 64  # images per task: enough that handing out tasks costs nothing
_TASKS_PER_WORKER = 4  # at least, so that a few files too are shared between all threads


class Decoded(NamedTuple):
    """Some consecutive files.

    Attributes:
        places: Which of all files could be read, n numbers.
        images: n×C×S×S uint8.
        errors: Place and reason of each file that could not be read.
    """

    places: list[int]
    images: Tensor
    errors: list[tuple[int, UserError]]


def decode_files(
    paths: Sequence[Path],
    image_shape: tuple[int, int, int],
    *,
    num_workers: int | None = None,
    ahead: int = 0,
) -> Generator[Decoded]:
    """Read images in order, scaled and cropped by `fit_square`.

    While whoever asks is busy with what it has got, the threads go on. In memory are two tasks of
    up to 64 images per thread, and at least `ahead` images.

    Args:
        paths: The files.
        image_shape: C, S, S.
        num_workers: Threads; `None` takes one per core.
        ahead: Images that may wait to be asked for.
    """
    workers = num_workers or os.cpu_count() or 1
    channels, size, _ = image_shape
    chunk = max(1, min(_MAX_CHUNK, len(paths) // (_TASKS_PER_WORKER * workers)))
    most = max(2 * workers, math.ceil(ahead / chunk))
    # threads: Pillow decodes and scales without holding Python's lock
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[Decoded]] = deque()
    try:
        for start in range(0, len(paths), chunk):
            places = range(start, min(start + chunk, len(paths)))
            mode: Mode = "RGB" if channels == 3 else "L"
            pending.append(pool.submit(_decode, paths, places, mode, size))
            if len(pending) > most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(paths: Sequence[Path], places: Sequence[int], mode: Mode, size: int) -> Decoded:
    read, images, errors = [], [], []
    for place in places:
        try:
            image = read_image(paths[place], mode=mode)
        except UserError as error:
            # a new one: this one's traceback would keep the image in memory
            errors.append((place, UserError(error.what, error.remedy)))
        else:
            read.append(place)
            images.append(fit_square(image, size))
    empty = torch.empty(0, 1 if mode == "L" else 3, size, size, dtype=torch.uint8)
    return Decoded(read, torch.stack(images) if images else empty, errors)
