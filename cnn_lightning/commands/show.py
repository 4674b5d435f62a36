"""`show`: a data set as a network will see it, in pictures and numbers."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cnn_lightning.analysis.datasets import channel_histograms, histogram_moments, mean_images
from cnn_lightning.callbacks.prediction_grid import evenly
from cnn_lightning.commands.configs import read_configs
from cnn_lightning.commands.data_settings import build_data
from cnn_lightning.commands.parser import Parser
from cnn_lightning.commands.training import silence
from cnn_lightning.console import say
from cnn_lightning.data import ImageDataModule
from cnn_lightning.data.overriding import overridden
from cnn_lightning.errors import MissingDataError, UserError
from cnn_lightning.figures import (
    draw_channel_statistics,
    draw_class_balance,
    draw_named_images,
    draw_samples,
    to_png,
)
from cnn_lightning.figures.dataset_images import MAX_COLUMNS, MAX_NAMED_IMAGES, MAX_ROWS
from cnn_lightning.figures.datasets import channel_names
from cnn_lightning.files import write_bytes, write_text
from cnn_lightning.randomness import generator, run_seed

NUM_DRAWS = 15
# constants that are farther from the data than this are worth a word
TOLERANCE = 0.01

_DESCRIPTION = """
Draw a data set: samples of each class, class balance, mean images, channel statistics, and one
image under its augmentation. Every option of `fit` is taken too, so that the recipes fit; of these,
--config FILE, --data CLASS and --data.ARGUMENT VALUE matter here. No model is built.
"""


def main(command: str, argv: list[str]) -> int:
    """Draw the data set that a command line names; returns the exit code."""
    parser = Parser(command, _DESCRIPTION)
    parser.usage = f"{parser.prog} (--config FILE | --data CLASS) [options]"
    parser.add_argument(
        "--output", type=Path, help="folder of the files (default: logs/show/<config or data>)"
    )
    parser.add_argument(
        "--images", type=int, default=10, help="samples of each class, 1 to 20 (default: 10)"
    )
    own, rest = parser.parse_known_args(argv)
    if not 1 <= own.images <= MAX_COLUMNS:
        raise UserError(f"--images is {own.images}", f"give a number in 1 to {MAX_COLUMNS}")
    silence()
    config_paths, _ = read_configs(rest)
    flags = {arg.partition("=")[0] for arg in rest}
    if "--ckpt_path" in flags:
        raise UserError("show reads no checkpoint", "leave --ckpt_path out")
    if not config_paths and "--data" not in flags:
        raise UserError("show needs a data set", "give --config FILE or --data CLASS")
    data, settings = build_data(command, rest)
    stem = config_paths[0].stem if config_paths else type(data).__name__
    folder = own.output or Path(settings.log_dir) / "show" / (settings.run or stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made: {error.strerror}", "give another folder with --output"
        ) from error
    DataSetShow(data, folder).write_all(own.images)
    return 0


class DataSetShow:
    """The pictures and tables of one data set.

    Args:
        data: The data module; its training files are fetched if they are not there.
        folder: Where the files go.

    Raises:
        UserError: The training images cannot be had, or are neither grey nor red, green and blue.
    """

    def __init__(self, data: ImageDataModule, folder: Path) -> None:
        self.data = data
        self.folder = folder
        self.name = type(data).__name__
        if data.num_channels not in (1, 3):
            raise UserError(
                f"images of {data.num_channels} channels cannot be shown", "use data with 1 or 3"
            )
        try:
            data.setup("fit")
        except MissingDataError:
            data.prepare_data()
            data.setup("fit")
        self.images, self.labels = data.load("train")
        self.train = data.stage_indices("train")
        self.counts = self._count()
        trained_on = self.labels[self.train]
        # the training images of each class, by their places in the split
        self.members = [self.train[trained_on == label] for label in range(data.num_classes)]

    def write_all(self, num_samples: int) -> None:
        """Say what the data set is, and write its figures and tables.

        Args:
            num_samples: Sample images of each class.
        """
        histograms = channel_histograms(self.images, self.train)
        computed = [values.tolist() for values in histogram_moments(histograms)]
        constants = [list(self.data.mean), list(self.data.std)]
        remarks = compare_statistics(computed, constants)
        self._summarise(computed, constants, remarks)
        self._draw("samples", self.draw_samples(num_samples))
        self._draw("class_balance", self.draw_class_balance())
        self._draw("mean_images", self.draw_mean_images())
        title = f"{self.name}: values of the {len(self.train):,} training images\n"
        title += "\n".join(remarks)
        self._draw(
            "channels",
            draw_channel_statistics(
                histograms, (computed[0], computed[1]), (constants[0], constants[1]), title
            ),
        )
        self._draw("augmentation", self.draw_augmentation())
        self._tabulate(
            "statistics",
            ["split", "class", "images"],
            (
                [split, name, count]
                for split, counts in self.counts.items()
                for name, count in zip(self.data.class_names, counts, strict=True)
            ),
        )
        columns = zip(channel_names(len(histograms)), *computed, *constants, strict=True)
        self._tabulate(
            "channels",
            ["channel", "mean", "std", "constant_mean", "constant_std"],
            ([name, *(f"{value:.6f}" for value in values)] for name, *values in columns),
        )

    def draw_samples(self, num_samples: int) -> Figure:
        """Draw images of each class, taken at even distances from the training images."""
        shown = self._choose(MAX_ROWS)
        rows = [self.images[evenly(self.members[label], num_samples)] for label in shown]
        sizes = {len(row) for row in rows}
        count = f"{'' if len(sizes) == 1 else 'up to '}{max(sizes)}"
        return draw_samples(
            rows,
            [self.data.class_names[label] for label in shown],
            self._title(f"{count} training images of each class, as stored", shown),
        )

    def draw_class_balance(self) -> Figure:
        """Draw the number of images of each class in each split."""
        title = f"{self.name}: images of each class"
        if "test" not in self.counts:
            title += " (the test images are not there)"
        return draw_class_balance(self.counts, self.data.class_names, title)

    def draw_mean_images(self) -> Figure:
        """Draw the mean of the training images of each class."""
        shown = self._choose(MAX_NAMED_IMAGES)
        means = mean_images(self.images, [self.members[label] for label in shown])
        return draw_named_images(
            means.round().to(torch.uint8),
            [self.data.class_names[label] for label in shown],
            self._title("mean training image of each class", shown),
        )

    def draw_augmentation(self) -> Figure:
        """Draw the first training image, and what training sees in its place."""
        original = self.images[self.train[:1]]
        own = self._own_augmentation()
        title = f"{self.name}, augment: {self.data.augment}"
        title += f", with its own {' and '.join(own)}" if own else ""
        others = self._not_drawn()
        if self.data.augment == "none" and not own:
            title += "\ntraining sees every image as it is stored"
            title += f",\nbut for {others}" if others else ""
            return draw_named_images(original, ["original"], title, side=200)
        title += f"\na training image and {NUM_DRAWS} draws of what training sees in its place"
        title += f",\nbut for {others}" if others else ""
        names = ["original", *(f"draw {number}" for number in range(1, NUM_DRAWS + 1))]
        images = torch.cat([original, draw_augmented(self.data, original[0])])
        return draw_named_images(images, names, title, side=128)

    def _own_augmentation(self) -> list[str]:
        """The methods by which a data module of a user's own changes what is drawn here."""
        return overridden(self.data, ("augment_images", "augmentation"))

    def _not_drawn(self) -> str:
        """What else becomes of training images, by the names of the options; "" if nothing does."""
        start = self.data.progressive_size.start
        is_smaller = start is not None and start < max(self.data.image_shape[1:])
        others = [*self.data.mixing.names, *(["start_size"] if is_smaller else [])]
        others += [f"its own {name}" for name in overridden(self.data, ("prepare_training",))]
        return " and ".join(others)

    def _count(self) -> dict[str, list[int]]:
        """Images of each class in each split; the test split is left out if it is not there."""
        places = {"training": self.train, "validation": self.data.stage_indices("val")}
        labels = {split: self.labels[indices] for split, indices in places.items()}
        try:
            labels["test"] = self.data.load("test")[1]
        except MissingDataError as error:
            say(f"without the test images: {error.what}")
        classes = self.data.num_classes
        return {split: torch.bincount(v, minlength=classes).tolist() for split, v in labels.items()}

    def _choose(self, most: int) -> list[int]:
        """At most so many of the classes that have images, at even distances."""
        filled = [label for label, members in enumerate(self.members) if len(members)]
        chosen: list[int] = evenly(torch.tensor(filled), most).tolist()
        return chosen

    def _title(self, text: str, shown: Sequence[int]) -> str:
        total = self.data.num_classes
        part = "" if len(shown) == total else f"\n{len(shown)} of {total} classes are shown"
        return f"{self.name}: {text}{part}"

    def _summarise(
        self, computed: list[list[float]], constants: list[list[float]], remarks: list[str]
    ) -> None:
        data = self.data
        shape = "×".join(map(str, data.image_shape))
        names = ", ".join(data.class_names[:MAX_ROWS])
        names += ", …" if data.num_classes > MAX_ROWS else ""
        say(f"{self.name}: images {shape} (channels×height×width)")
        say(f"{data.num_classes} classes: {names}")
        say(", ".join(f"{sum(counts):,} {split}" for split, counts in self.counts.items()))
        for kind, found, given in zip(("mean", "std"), computed, constants, strict=True):
            say(f"{kind:<4} {_spell(found)}, the constants are {_spell(given)}")
        for remark in remarks:
            say(remark)
        if data.augment == "none" and not self._own_augmentation():
            say(
                "augment: none; to see some, add --data.augment crop_flip (or crop, for what must "
                "not be mirrored)"
            )

    def _draw(self, name: str, figure: Figure) -> None:
        path = self.folder / f"{name}.png"
        write_bytes(path, to_png(figure))
        say(str(path))

    def _tabulate(self, name: str, header: list[str], rows: Iterable[list[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        path = self.folder / f"{name}.csv"
        write_text(path, text.getvalue())
        say(str(path))


def draw_augmented(data: ImageDataModule, image: Tensor) -> Tensor:
    """Draw what training would see of a batch of one image repeated.

    The draws are those of the first batch of a run with the present seed.

    Args:
        data: Changes the image.
        image: C×H×W uint8.

    Returns:
        15×C×H×W uint8.
    """
    epoch, batch, rank = 0, 0, 0
    draws = generator("augment", run_seed(), epoch, batch, rank)
    copies = image.repeat(NUM_DRAWS, 1, 1, 1)
    # alternating flips depend on an image's place, and there may be fewer images than draws
    indices = torch.arange(NUM_DRAWS) % len(data.load("train")[0])
    return data.augment_images(copies, draws, indices=indices, epoch=epoch)


def compare_statistics(computed: list[list[float]], constants: list[list[float]]) -> list[str]:
    """Say where constants are off by more than 0.01.

    Args:
        computed: Means and standard deviations, each of C channels, in units of 0..1.
        constants: The same as the data module states them.

    Returns:
        A line for each of the two that is off; one that says so if neither is.

    Example:
        >>> compare_statistics([[0.5], [0.25]], [[0.485], [0.25]])
        ['mean: the constants are more than 0.01 off (grey by 0.015)']
    """
    remarks = []
    for kind, found, given in zip(("mean", "std"), computed, constants, strict=True):
        apart = [abs(one - other) for one, other in zip(found, given, strict=True)]
        odd = [
            f"{name} by {distance:.3f}"
            for name, distance in zip(channel_names(len(apart)), apart, strict=True)
            if distance > TOLERANCE
        ]
        if odd:
            remarks.append(
                f"{kind}: the constants are more than {TOLERANCE} off ({', '.join(odd)})"
            )
    return remarks or [f"mean and std: the constants are right within {TOLERANCE}"]


def _spell(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
