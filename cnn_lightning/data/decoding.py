"""Image files to squares of one size: side by side, in order, and never many at a time."""

import ctypes
import math
import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from cnn_lightning.errors import RunError, UserError
from cnn_lightning.images import Mode, fit_image, read_image

_Result = TypeVar("_Result")

_MAX_CHUNK = 64  # images per task: enough that handing out tasks costs nothing
_TASKS_PER_WORKER = 4  # at least, so that a few files too are shared between all workers
# of 32×32 pixels: with so many each, threads take as long as processes that have yet to start
_FILES_PER_PROCESS = 200
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>: a signal for when the parent has died


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
    """Read images in order, scaled and cropped by `fit_image`.

    While whoever asks is busy with what it has got, the workers go on. In memory are two tasks of
    up to 64 images per worker, and at least `ahead` images.

    A few files are read by threads, many by processes where the system is Linux: of a small file
    most of the time goes into Python, of which the threads of one process run one at a time.

    Args:
        paths: The files.
        image_shape: C, S, S.
        num_workers: Workers; `None` takes one per core.
        ahead: Images that may wait to be asked for.

    Raises:
        RunError: A process was killed.
    """
    workers = num_workers or os.cpu_count() or 1
    tasks = _Tasks(paths, image_shape, workers)
    most = max(2 * workers, math.ceil(ahead / tasks.chunk))
    if sys.platform == "linux" and workers > 1 and len(paths) >= workers * _FILES_PER_PROCESS:
        return _by_processes(tasks, workers, most)
    return _in_order(ThreadPoolExecutor(workers), tasks.decode, len(tasks), most)


class _Tasks:
    """The files, some consecutive ones at a time."""

    def __init__(
        self, paths: Sequence[Path], image_shape: tuple[int, int, int], workers: int
    ) -> None:
        self.paths = paths
        self.mode: Mode = "RGB" if image_shape[0] == 3 else "L"
        self.image_shape = image_shape
        self.chunk = max(1, min(_MAX_CHUNK, len(paths) // (_TASKS_PER_WORKER * workers)))

    def __len__(self) -> int:
        return math.ceil(len(self.paths) / self.chunk)

    def decode(self, number: int) -> Decoded:
        read, images, errors = [], [], []
        start = number * self.chunk
        for place in range(start, min(start + self.chunk, len(self.paths))):
            try:
                image = read_image(self.paths[place], mode=self.mode)
            except UserError as error:
                # a new one: this one's traceback would keep the image in memory
                errors.append((place, UserError(error.what, error.remedy)))
            else:
                read.append(place)
                images.append(fit_image(image, *self.image_shape[1:]))
        empty = torch.empty(0, *self.image_shape, dtype=torch.uint8)
        return Decoded(read, torch.stack(images) if images else empty, errors)


def _in_order(
    pool: Executor, decode: Callable[[int], _Result], num_tasks: int, most: int
) -> Generator[_Result]:
    pending: deque[Future[_Result]] = deque()
    try:
        for number in range(num_tasks):
            pending.append(pool.submit(decode, number))
            if len(pending) > most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _by_processes(tasks: _Tasks, workers: int, most: int) -> Generator[Decoded]:
    # by a fork: a process that began anew would run the user's script from its top
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, context, _begin_process, (tasks,))
    try:
        with warnings.catch_warnings():
            # Python 3.12 and later warn of a fork beside threads: these here hold no lock that a
            # process needs
            warnings.simplefilter("ignore", DeprecationWarning)
            pool.submit(int).result()  # starts them all
        with closing(_in_order(pool, _decode_in_process, len(tasks), most)) as results:
            for places, images, errors in results:
                yield Decoded(places, torch.from_numpy(images), errors)
    except BrokenProcessPool as error:
        raise RunError(
            "a process that reads images was killed, perhaps since memory ran out",
            "give fewer num_workers",
        ) from error


_tasks: _Tasks  # of a process


def _begin_process(tasks: _Tasks) -> None:
    global _tasks  # with every task, it would be sent anew
    _tasks = tasks
    torch.set_num_threads(1)  # the threads of the parent are not here
    # it ends with its parent, and not by a signal to both, for which the parent has handlers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _decode_in_process(number: int) -> tuple[list[int], np.ndarray, list[tuple[int, UserError]]]:
    """As arrays: tensors would go through shared memory, of which a container may have little."""
    places, images, errors = _tasks.decode(number)
    return places, images.numpy(), errors
