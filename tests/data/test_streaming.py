"""Decoding a folder of images keeps a few of them in memory, however many there are."""

import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnn_lightning.data import ImageFolderDataModule
from cnn_lightning.images import fit_image


class Counter:
    """Stands for `fit_image`, and counts the images that it gave and that are still alive."""

    def __init__(self) -> None:
        self.alive = self.most = self.total = 0
        self.lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        image = fit_image(*args, **kwargs)
        with self.lock:
            self.alive += 1
            self.total += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(image, self.forget)
        return image

    def forget(self) -> None:
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("per_class", [300, 900])
def test_a_few_decoded_images_are_in_memory_at_a_time(
    per_class: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((4, 4, 3), number % 256, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number:04}.bmp")
    counter = Counter()
    for name, module in list(sys.modules.items()):
        if name.startswith("cnn_lightning.data") and hasattr(module, "fit_image"):
            monkeypatch.setattr(module, "fit_image", counter)
    (tmp_path / "test/cat").mkdir(parents=True)  # so that all others are for training
    images, _ = ImageFolderDataModule(root=str(tmp_path), num_workers=1).load("train")
    assert counter.total == len(images) == 2 * per_class
    assert counter.most <= 5 * 64  # tasks of 64 images: waiting, decoding, and being written
    assert torch.equal(images[:, 0, 0, 0], (torch.arange(2 * per_class) % per_class % 256).byte())
