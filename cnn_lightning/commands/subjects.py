"""The images that a command looks at: validation images, or files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.data import ImageDataModule
from cnn_lightning.errors import UserError
from cnn_lightning.images import fit_image, list_images, load_images

_MAX_MEASURED = 500


class Subjects(NamedTuple):
    """Images of the size that a classifier was trained on.

    Attributes:
        images: N×C×H×W uint8, those that are shown.
        names: What to call them, N.
        labels: Their true classes, N numbers in 0..K-1, if they are known.
        measured: M×C×H×W uint8, those over which layers are measured.
        measured_name: What to call these.
    """

    images: Tensor
    names: list[str]
    labels: list[int] | None
    measured: Tensor
    measured_name: str


def choose_validation(
    data: ImageDataModule, classifier: ImageClassifier, num_images: int
) -> Subjects:
    """The first validation image of each of the first classes, then the second of each, ….

    Layers are measured over 500 validation images at most, evenly spread.

    Raises:
        UserError: The data cannot be read, or is not what the classifier was trained on.
    """
    images, labels = data.load("train")
    classifier.adapt_to(data)
    indices = data.stage_indices("val")
    members = [indices[labels[indices] == label].tolist() for label in range(data.num_classes)]
    rounds = range(max(map(len, members)))
    order = [own[place] for place in rounds for own in members if place < len(own)]
    chosen = order[:num_images]
    files = data.image_names("train")
    names = [f"image {index}" if files is None else files[index] for index in chosen]
    places = torch.linspace(0, len(indices) - 1, min(_MAX_MEASURED, len(indices)))
    measured = images[indices[places.round().long()]]
    return Subjects(
        images[chosen],
        names,
        labels[chosen].tolist(),
        measured,
        f"{len(measured)} validation images",
    )


def read_files(
    paths: Sequence[str],
    true_names: Sequence[str] | None,
    classifier: ImageClassifier,
    num_images: int,
) -> Subjects:
    """Image files, each brought to the classifier's size; layers are measured over these alone.

    Args:
        paths: Files, and folders, of each of which `num_images` are taken, evenly spread.
        true_names: The true class of each image, or one class for all; `None` if not known.
        classifier: Says what size and colours it needs, and what its classes are.
        num_images: See `paths`.

    Raises:
        UserError: There is no such file, a folder holds no images, or the class names do not fit.
    """
    files = [file for path in paths for file in _expand(Path(path), num_images)]
    if classifier.image_shape is None:
        raise UserError("the checkpoint does not know the size of its images", "train it once more")
    channels, *size = classifier.image_shape
    images = torch.stack([fit_image(image, *size) for image in load_images(files, channels)])
    labels = None
    if true_names is not None:
        labels = _look_up(true_names, classifier.class_names or (), len(files))
    names = [file.name for file in files]
    return Subjects(images, names, labels, images, "these images alone")


def _expand(path: Path, num_images: int) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = list_images(path)
    if not files:
        raise UserError(f"{path} holds no images", "give a folder of .jpg or .png files")
    places = torch.linspace(0, len(files) - 1, min(num_images, len(files)))
    return [path / files[place] for place in places.round().long().tolist()]


def _look_up(true_names: Sequence[str], class_names: Sequence[str], num_images: int) -> list[int]:
    unknown = [name for name in true_names if name not in class_names]
    if unknown:
        raise UserError(
            f"--labels: the classifier knows no class {unknown[0]}",
            f"its classes are {', '.join(class_names)}",
        )
    if len(true_names) not in (1, num_images):
        raise UserError(
            f"--labels names {len(true_names)} classes for {num_images} images",
            "name one for each image, or one for all",
        )
    labels = [class_names.index(name) for name in true_names]
    return labels * num_images if len(labels) == 1 else labels
