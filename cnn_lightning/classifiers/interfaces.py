"""What classifiers take and give: batches, data modules, predictions."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from cnn_lightning.preprocessing import Preprocessing


class ImageBatch(Protocol):
    """What a step receives; `cnn_lightning.data.Batch` is one, and says what each part is."""

    @property
    def images(self) -> Tensor:
        """Prepared images, or features in their place."""

    @property
    def labels(self) -> Tensor:
        """N int64."""

    @property
    def indices(self) -> Tensor:
        """N int64."""

    @property
    def is_features(self) -> bool:
        """Whether `images` are features."""

    @property
    def targets(self) -> Tensor | None:
        """N×K float32 in place of `labels`, where images are mixed."""


class ImageData(Protocol):
    """What a classifier reads of a data module, and the one thing it sets."""

    class_names: Sequence[str]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: Preprocessing | None

    @property
    def shape_is_guessed(self) -> bool:
        """Whether `image_shape` is that of the files at hand, and nobody asked for it."""

    def load(self, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """A split's images N×C×H×W uint8 and labels N int64."""

    def stage_indices(self, stage: Literal["train", "val", "test"]) -> Tensor:
        """Places in their split of the images that a stage uses, int64."""

    def prepare(self, images: Tensor) -> Tensor:
        """Images N×C×H×W uint8 as a network takes them."""

    def class_counts(self) -> Tensor:
        """How often training sees each class in an epoch, K int64."""


@runtime_checkable
class CountedBatches(Protocol):
    """A loader that knows how large its batches are before it has read them."""

    def num_images_in(self, batch: int) -> int:
        """Images in one batch of an epoch, counted from 0, of this process."""


class Predictions(NamedTuple):
    """What `predict_images` gives for N images of K classes.

    Attributes:
        class_names: The most probable class of each image, N names.
        probabilities: N×K float32 on the CPU, rows sum to 1, columns in the order of the
            classifier's `class_names`.
    """

    class_names: list[str]
    probabilities: Tensor


class StepOutput(NamedTuple):
    """What `test_step` and `predict_step` give.

    Attributes:
        probabilities: N×K float32, rows sum to 1.
        labels: N int64.
        indices: N int64, each image's place in the data set of its split.
    """

    probabilities: Tensor
    labels: Tensor
    indices: Tensor
