"""Image files without labels, for `predict`: read while the network works on those before."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from cnn_lightning.data.base import ImageDataModule, Split
from cnn_lightning.data.decoding import decode_files
from cnn_lightning.data.listed import check_workers
from cnn_lightning.data.listing import check_place
from cnn_lightning.data.loader import Batch
from cnn_lightning.errors import UserError
from cnn_lightning.images import EXTENSIONS, Mode, fit_image, is_image_name, read_image, walk_files

NO_LABEL = -1


class Unread(NamedTuple):
    """A file that gets no prediction.

    Attributes:
        path: The file, as it was found.
        reason: Why not, naming the file.
    """

    path: str
    reason: str


class UnlabelledDataModule(ImageDataModule):
    """Your own pictures, for `predict` alone: files, and folders with all that is in them.

    Files are decoded by threads while the network works, and few are in memory at a time. What
    cannot be read is passed over and listed. `predict --data.paths` sets everything else from the
    checkpoint.

    Args:
        paths: Files and folders.
        class_names: What the classifier tells apart.
        image_shape: C, H, W that images are brought to by `fit_image`, as in training.
        mean: Per channel, in units of 0..1.
        std: As `mean`.
        eval_batch_size: Images per process and step.
        num_workers: Threads or processes that decode; `None` takes one per core.
        allow_links: Whether links within a folder may lead out of it; else they are not read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> Image.new("RGB", (40, 30)).save(f"{folder.name}/photo.png")
        >>> data = UnlabelledDataModule(
        ...     paths=folder.name,
        ...     class_names=["cat", "dog"],
        ...     image_shape=(3, 16, 16),
        ...     mean=(0.5, 0.5, 0.5),
        ...     std=(0.25, 0.25, 0.25),
        ... )
        >>> data.setup("predict")
        >>> next(iter(data.predict_dataloader())).images.shape
        torch.Size([1, 3, 16, 16])
        >>> folder.cleanup()
    """

    def __init__(
        self,
        *,
        paths: list[str] | str,
        class_names: list[str],
        image_shape: tuple[int, int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        eval_batch_size: int = 64,
        num_workers: int | None = None,
        allow_links: bool = False,
    ) -> None:
        super().__init__(eval_batch_size=eval_batch_size)
        self.paths = [paths] if isinstance(paths, str) else list(paths)
        self.class_names = tuple(class_names)
        self.image_shape = image_shape
        self.mean, self.std = tuple(mean), tuple(std)
        self.num_workers = check_workers(num_workers)
        self.allow_links = allow_links
        self.unread: list[Unread] = []
        self._files: list[Path] = []

    @override
    def setup(self, stage: str) -> None:
        if stage != "predict":
            raise _without_labels()
        if self.num_channels not in (1, 3):
            raise UserError(
                f"{self.num_channels} channels are wanted, and image files are read with 1 or 3",
                "leave --data.paths out to predict the test images of the data it was trained on",
            )
        self._files, self.unread = list_files(self.paths, allow_links=self.allow_links)
        if self.trainer is not None and self.trainer.global_rank > 0:
            self.unread = []  # the first process tells of these
        if not self._files:
            what = "; ".join(one.reason for one in self.unread[:3]) or "nothing was named"
            raise UserError(f"there are no images to predict: {what}", "check --data.paths")

    @override
    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        raise _without_labels()

    @override
    def image_names(self, split: Split) -> Sequence[str]:
        return [str(path) for path in self._files]

    @override
    def stored_images(self, split: Split, indices: Tensor) -> Tensor:
        channels, *size = self.image_shape
        paths = [self._files[index] for index in indices.tolist()]
        mode: Mode = "RGB" if channels == 3 else "L"
        return torch.stack([fit_image(read_image(path, mode=mode), *size) for path in paths])

    @override
    def predict_dataloader(self) -> "FileLoader":  # type: ignore[override]  # of another kind
        trainer = self.trainer
        return FileLoader(
            self._files,
            self.image_shape,
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            unread=self.unread,
        )


class FileLoader:
    """Batches of image files, in order; what cannot be read is left out.

    Args:
        files: All files, of all processes.
        image_shape: C, S, S.
        batch_size: Images per batch; the last has fewer.
        num_workers: Threads or processes that decode.
        rank: This process, which takes every `world_size`-th file.
        world_size: Processes.
        unread: Where files that could not be read are added.
    """

    def __init__(
        self,
        files: Sequence[Path],
        image_shape: tuple[int, int, int],
        *,
        batch_size: int,
        num_workers: int,
        unread: list[Unread],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.files = files
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.unread = unread
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches if all can be read, the same in every process."""
        return -(-len(self.files) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Batch]:
        own = range(self.rank, len(self.files), self.world_size)
        chunks = decode_files(
            [self.files[index] for index in own],
            self.image_shape,
            num_workers=self.num_workers,
            ahead=self.batch_size,
        )
        parts: list[Tensor] = []
        indices: list[int] = []
        with closing(chunks):
            for chunk in chunks:
                for place, error in chunk.errors:
                    self.unread.append(Unread(str(self.files[own[place]]), error.what))
                parts.append(chunk.images)
                indices += [own[place] for place in chunk.places]
                while len(indices) >= self.batch_size:
                    images = torch.cat(parts)
                    yield _batch(images[: self.batch_size], indices[: self.batch_size])
                    parts, indices = [images[self.batch_size :]], indices[self.batch_size :]
        if indices:
            yield _batch(torch.cat(parts), indices)


def list_files(paths: Sequence[str], *, allow_links: bool) -> tuple[list[Path], list[Unread]]:
    """All files that are named, or lie in folders that are named, at any depth.

    Hidden files and folders (`.name`) within a folder are passed over, and links to folders are
    not followed. In a folder the ending tells an image; a file that is named is tried whatever it
    is called.

    Args:
        paths: Files and folders.
        allow_links: Whether links within a folder may lead out of it.

    Returns:
        Each file once, in the order of `paths` and sorted within a folder; and what is none.
    """
    files: dict[Path, None] = {}
    unread = []
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        closed: list[OSError] = []
        found = [path / name for name in walk_files(path, on_error=closed.append)]
        unread += [Unread(str(one.filename), f"the folder cannot be read: {one}") for one in closed]
        for file in found:
            try:
                if not is_image_name(file.name):
                    raise UserError(f"{file} does not end in {', '.join(EXTENSIONS)}")
                check_place(file, path, may_lead_out=file.is_symlink(), allow_links=allow_links)
            except UserError as error:
                unread.append(Unread(str(file), error.what))
            except (OSError, RuntimeError) as error:  # a link to itself
                unread.append(Unread(str(file), f"{file} cannot be read: {error}"))
            else:
                files[file] = None
        if not found and not closed:
            unread.append(Unread(str(path), f"{path} is an empty folder"))
    return list(files), unread


def _batch(images: Tensor, indices: list[int]) -> Batch:
    labels = torch.full((len(indices),), NO_LABEL)
    return Batch(images, labels, torch.tensor(indices))


def _without_labels() -> UserError:
    return UserError(
        "UnlabelledDataModule has no labels", "use it with predict, and another for the rest"
    )
