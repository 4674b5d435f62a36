"""The features of a frozen backbone, computed once and reused by every later epoch."""

import hashlib
import json
import math
import os
import sys
import time
import weakref
from contextlib import ExitStack, nullcontext
from pathlib import Path

import lightning as L
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from typing_extensions import override

from cnn_lightning.analysis.activations import evaluating
from cnn_lightning.callbacks.kept_memory import kept_as_in_training
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.data.base import Stage
from cnn_lightning.data.loader import Features
from cnn_lightning.data.overriding import CHANGING_TRAINING, overridden
from cnn_lightning.errors import DamagedFileError
from cnn_lightning.files import appearing_whole, map_array, part_of
from cnn_lightning.runs import RunFolder

# images, whose last layers may be computed together: a layer of 400 MB is read once for all of them
_AT_LEAST = 32


class FeatureCache(L.Callback):
    """Computes the features that a frozen backbone gives for each image once per run.

    They are kept as `features/*.npy` in the run folder, under a name that is a hash of everything
    they depend on: the backbone's weights, the images, which of them the stage uses, their
    preparation and the precision. So a resumed run finds its own, and never another's. Where
    training images are augmented, or changed by what a data module overrides, their features differ
    each time and are not kept; the validation images' still are.

    Args:
        enabled: Whether to keep features at all.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.folder: RunFolder | None = None

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning at run time
        if (
            not self.enabled
            or self.folder is None
            or not isinstance(pl_module, ImageClassifier)
            or pl_module.freeze_part != "backbone"
            or not isinstance(data, ImageDataModule)
        ):
            return
        if trainer.limit_train_batches != 1.0 or trainer.limit_val_batches != 1.0:
            say("features are not kept: only a part of the batches is used")
            return
        stages: list[Stage] = ["train", "val"]
        if why := _why_they_differ(data):
            say(f"features of training images are computed every time: {why}")
            stages = ["val"]
        backbone = _digest(pl_module)
        for stage in stages:
            features = self._features(trainer, pl_module, data, stage, backbone.copy())
            data.use_features(stage, features)

    def _features(
        self,
        trainer: L.Trainer,
        classifier: ImageClassifier,
        data: ImageDataModule,
        stage: Stage,
        backbone: "hashlib._Hash",
    ) -> Features:
        """Features float32 of one stage's images, in the rows of their indices."""
        assert self.folder is not None  # noqa: S101  # checked by the only caller
        name = f"{stage}-{_key(trainer, classifier, data, stage, backbone)}.npy"
        # the first process alone knows for certain which folder this run has
        path = trainer.strategy.broadcast(self.folder.features / name)
        if path.is_file():
            say(f"taking features of the {stage} images from {path}")
        else:
            self._compute(trainer, classifier, data, stage, path)
        trainer.strategy.barrier("features")
        features = map_array(path, np.float32, len(data.load("train")[0]))
        if features is None:
            raise _damaged(path)
        return Features(torch.from_numpy(features), _RowReader(path, features.shape))

    def _compute(
        self,
        trainer: L.Trainer,
        classifier: ImageClassifier,
        data: ImageDataModule,
        stage: Stage,
        path: Path,
    ) -> None:
        images = data.load("train")[0]
        indices = data.stage_indices(stage)
        mine = indices[trainer.global_rank :: trainer.world_size]
        # all processes fill one file, each its own rows
        part = trainer.strategy.broadcast(part_of(path))
        console = Console(stderr=True)
        started = time.monotonic()
        say(f"computing features of {len(indices):,} {stage} images once")
        with (
            appearing_whole(path, part) if trainer.is_global_zero else nullcontext(),
            Progress(console=console, disable=not sys.stderr.isatty()) as progress,
            kept_as_in_training(trainer),
            ExitStack() as opened,
        ):
            task = progress.add_task(f"{stage} features", total=len(mine))
            rows: _RowWriter | None = None
            for chosen in torch.split(mine, _several(data.eval_batch_size)):
                features = _forward(trainer, classifier, data, images[chosen])
                if rows is None:
                    rows = _RowWriter(trainer, part, (len(images), *features.shape[1:]))
                    opened.callback(rows.close)
                rows.write(chosen, features)
                progress.advance(task, len(chosen))
            opened.close()
            trainer.strategy.barrier("features written")
        say(f"features of the {stage} images took {time.monotonic() - started:.1f} s")


def _why_they_differ(data: ImageDataModule) -> str | None:
    """Why training images are not the same in each epoch, if they may not be."""
    if own := overridden(data, CHANGING_TRAINING):
        return f"{type(data).__name__} changes them by its own {', '.join(own)}"
    if data.augment != "none":
        return f"augment is {data.augment} (with `--data.augment none` they would be kept)"
    if data.mixing or data.progressive_size.start is not None:
        return "images are mixed or grow"
    return None


class _RowWriter:
    """A file `.npy` float32 that several processes fill row by row.

    Not a map while it is written: a full disk kills a process that writes to a map.

    Args:
        trainer: Whose first process makes the file.
        path: The file.
        shape: Of the whole array, rows first.
    """

    def __init__(self, trainer: L.Trainer, path: Path, shape: tuple[int, ...]) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        if trainer.is_global_zero:
            with path.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                stream.truncate(stream.tell() + 4 * math.prod(shape))
        trainer.strategy.barrier("features opened")
        self._start = _first_row(path, shape)
        self._row_bytes = 4 * math.prod(shape[1:])
        self._stream = path.open("r+b")

    def write(self, places: Tensor, rows: Tensor) -> None:
        """Write rows float32 at their places."""
        for place, row in zip(places.tolist(), rows, strict=True):
            self._stream.seek(self._start + place * self._row_bytes)
            self._stream.write(row.numpy().astype("<f4", copy=False).tobytes())

    def close(self) -> None:
        """Synchronise what was written to disk."""
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())


class _RowReader:
    """Reads rows of a file `.npy` float32; a map would keep in memory whatever was read from it.

    Args:
        path: The file.
        shape: Of the whole array, rows first.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._path = path
        self._shape = shape[1:]
        self._row_bytes = 4 * math.prod(self._shape)
        self._start = _first_row(path, shape)
        self._stream = path.open("rb", buffering=0)
        weakref.finalize(self, self._stream.close)

    def __call__(self, places: Tensor) -> Tensor:
        """The rows at these places n int64, float32.

        Raises:
            DamagedFileError: The file was cut off since it was opened.
        """
        rows = np.empty((len(places), *self._shape), "<f4")
        for place, row in zip(places.tolist(), rows, strict=True):
            self._stream.seek(self._start + place * self._row_bytes)
            if self._stream.readinto(row.data) != self._row_bytes:
                raise _damaged(self._path)
        return torch.from_numpy(rows)


def _first_row(path: Path, shape: tuple[int, ...]) -> int:
    """Where the rows of a file `.npy` float32 of this shape begin, in bytes."""
    return path.stat().st_size - 4 * math.prod(shape)


def _damaged(path: Path) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is damaged: cut off, or changed since it was written",
        "delete it, and it is computed anew",
    )


def _forward(
    trainer: L.Trainer, classifier: ImageClassifier, data: ImageDataModule, images: Tensor
) -> Tensor:
    network = classifier.network
    parts = torch.split(images, data.eval_batch_size)
    with evaluating(network.backbone), trainer.precision_plugin.forward_context():
        prepared = (data.prepare(part.to(classifier.device)) for part in parts)
        return network.features_of(prepared).float().cpu()


def _several(batch_size: int) -> int:
    """As many images as whole batches have, about `_AT_LEAST` if those are smaller."""
    return batch_size * max(1, _AT_LEAST // batch_size)


def _digest(classifier: ImageClassifier) -> "hashlib._Hash":
    """Of the backbone's numbers; taken once, as of a large network it takes a second."""
    digest = hashlib.sha256()
    for name, value in classifier.network.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest


def _key(
    trainer: L.Trainer,
    classifier: ImageClassifier,
    data: ImageDataModule,
    stage: Stage,
    digest: "hashlib._Hash",
) -> str:
    """A name for the features of a stage; `digest` of the backbone is added to."""
    preparation = classifier.preprocessing
    # the rows of other images are left empty
    rows = data.stage_indices(stage).to(torch.int64).contiguous().numpy()
    facts = {
        "images": data.fingerprint("train"),
        "preprocessing": preparation.as_dict() if preparation else None,
        "channels_last": classifier.channels_last,
        "rows": hashlib.sha256(rows.tobytes()).hexdigest(),
        "precision": str(trainer.precision),
        "torch": torch.__version__,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:24]
