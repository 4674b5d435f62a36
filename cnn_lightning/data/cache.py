"""Images decoded once, into a memory-mapped file that later runs reuse."""

import glob
import hashlib
import json
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from cnn_lightning.console import say
from cnn_lightning.data.decoding import decode_files
from cnn_lightning.data.listing import ImageFile
from cnn_lightning.errors import UserError
from cnn_lightning.files import atomic_writer, map_array, write_text

CACHE_FOLDER = ".cnn_lightning_cache"

# part of every fingerprint: raise it when the same files would be decoded to other pixels
_FORMAT = 3
_MAX_NAMED = 5
# one that is being written changes every few seconds
_ABANDONED_AFTER_S = 24 * 60 * 60


@dataclass(frozen=True)
class DecodedImages:
    """The images of one split, and where they lie decoded.

    Args:
        root: Folder of the files.
        stem: Tells splits and settings of one root apart.
        files: The files in order.
        class_names: The classes.
        image_shape: C, S, S of every decoded image.
    """

    root: Path
    stem: str
    files: Sequence[ImageFile]
    class_names: Sequence[str]
    image_shape: tuple[int, int, int]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of files, classes and size, 64 hexadecimal digits."""
        content = [_FORMAT, self.image_shape, tuple(self.class_names), list(self.files)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def load(self, num_workers: int) -> Tensor:
        """Map the decoded images into memory, after decoding them if none are there.

        Args:
            num_workers: Threads that decode.

        Returns:
            N×C×S×S uint8, copied on write.

        Raises:
            UserError: Files cannot be read, or there is no place for the result.
        """
        images = self._open()
        return self._build(num_workers) if images is None else images

    def _path(self, folder: Path) -> Path:
        # the hash is in the name, so two runs that see other files never share half a cache
        return folder / f"{self.stem}.{self.fingerprint[:16]}.npy"

    def _folders(self) -> Iterator[Path]:
        """Where decoded images may lie, the most wanted place first."""
        own = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        if chosen := os.environ.get("CNN_LIGHTNING_CACHE"):
            yield Path(chosen) / own
        yield self.root / CACHE_FOLDER
        yield Path.home() / ".cache" / "cnn-lightning" / own

    def _open(self) -> Tensor | None:
        shape = (len(self.files), *self.image_shape)
        for folder in self._folders():
            # absent, or damaged: made anew
            images = map_array(self._path(folder), np.uint8, shape[0])
            if images is not None and images.shape == shape:
                return torch.from_numpy(images)
        return None

    def _build(self, num_workers: int) -> Tensor:
        folder = next((place for place in self._folders() if _is_writable(place)), None)
        if folder is None:
            raise UserError(
                f"there is no place for the decoded images of {self.root}",
                "set CNN_LIGHTNING_CACHE to a folder that can be written",
            )
        path, manifest = self._path(folder), folder / f"{self.stem}.json"
        say(_reason(manifest, self.files) + f": decoding {len(self.files):,} images to {path}")
        shape = (len(self.files), *self.image_shape)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        try:
            # not a map while it is written: a full disk kills a process that writes to a map
            decoded = self._decode(num_workers)
            with atomic_writer(path) as stream, closing(decoded):
                np.lib.format.write_array_header_1_0(stream, header)
                for chunk in decoded:
                    stream.write(chunk.numpy().data)
            write_text(manifest, json.dumps(self.files))
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror}",
                f"{np.prod(shape) / 1e9:.1f} GB are needed there, or in $CNN_LIGHTNING_CACHE",
            ) from error
        images = self._open()
        if images is None:
            raise UserError(f"{path} vanished while it was made", "start again")
        self._clear(folder)
        return images

    def _clear(self, folder: Path) -> None:
        """Delete what was decoded of other files, and what killed processes left half written."""
        stem = glob.escape(self.stem)  # a table's name is in it
        for old in folder.glob(f"{stem}.*.npy"):
            if old != self._path(folder):
                with suppress(OSError):  # another run may be using or deleting it
                    old.unlink()
        for part in folder.glob(f".{stem}.*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_S:
                    part.unlink()

    def _decode(self, num_workers: int) -> Generator[Tensor]:
        """Images in order, some n×C×S×S at a time.

        Raises:
            UserError: Images cannot be read; all of them are counted, and the first ones named.
        """
        paths = [self.root / file.name for file in self.files]
        damaged: list[UserError] = []
        progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        task = progress.add_task("decoding", total=len(paths))
        chunks = decode_files(paths, self.image_shape, num_workers=num_workers)
        with progress, closing(chunks):
            for chunk in chunks:
                damaged += [error for _, error in chunk.errors]
                progress.advance(task, len(chunk.places) + len(chunk.errors))
                if not damaged:
                    yield chunk.images
        if damaged:
            raise _all_of(damaged)


def _all_of(errors: Sequence[UserError]) -> UserError:
    """One error that names the first of several, and counts the rest."""
    if len(errors) == 1:
        return errors[0]
    named = "; ".join(error.what for error in errors[:_MAX_NAMED])
    more = f" and {len(errors) - _MAX_NAMED} more" if len(errors) > _MAX_NAMED else ""
    return UserError(f"{len(errors)} images: {named}{more}", "repair these files or delete them")


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _reason(manifest: Path, files: Sequence[ImageFile]) -> str:
    """Why images are decoded, held against what was decoded last."""
    try:
        old = {name: tuple(rest) for name, *rest in json.loads(manifest.read_text())}
    except (OSError, ValueError, TypeError):
        return "first use"
    new = {name: tuple(rest) for name, *rest in files}
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return f"{len(new.keys() - old)} added, {len(old.keys() - new)} removed, {changed} changed"
