"""The options of the training commands that are ours, besides the classes of a config."""

from typing import Any, NamedTuple, TypedDict


class ByPrecision(TypedDict):
    """A number for each precision that a CPU computes in."""

    bfloat16: int
    float32: int


class Option(NamedTuple):
    """One option.

    Attributes:
        kind: Its type.
        default: Its value if it is not given.
        help: What it does, in a sentence.
        only: The one command that has it; `None` if all have.
    """

    kind: Any
    default: Any
    help: str
    only: str | None = None


DEFAULT_SEED = 42
GENERAL = {
    "seed_everything": Option(int, DEFAULT_SEED, "Seed of every random draw."),
    "run": Option(str | None, None, "Name of the run (default: the config's)."),
    "log_dir": Option(str, "logs", "Folder of all runs."),
    "tf32": Option(
        kind=bool,
        default=True,
        help="Let NVIDIA GPUs multiply float32 in TF32, which is faster and less precise.",
    ),
    "compile": Option(
        kind=bool | str,
        default=False,
        help="Compile the network: true, or a backend or mode of torch.compile.",
        only="fit",
    ),
    "cpu_bf16": Option(
        kind=bool,
        default=False,
        help="Without a GPU, mixed precision in bfloat16 if the processor multiplies it.",
        only="fit",
    ),
    "cpu_micro_batch": Option(
        kind=int | ByPrecision | None,
        default=None,
        help="Without a GPU, most images that go through the network at once, batches in parts; a"
        " number, or one for each precision as {bfloat16: 32, float32: 16}.",
        only="fit",
    ),
    "keep_memory": Option(
        kind=bool,
        default=True,
        help="On a CPU, keep the memory that a step frees for the next one: faster, more memory.",
        only="fit",
    ),
    "top_k": Option(
        kind=int,
        default=3,
        help="Classes in each line of predictions.csv, the most probable first.",
        only="predict",
    ),
}
# callbacks that a config sets up by these names; each has a value that turns it off
CALLBACK_GROUPS = {
    "checkpoint": "LastCheckpoint",
    "feature_cache": "FeatureCache",
    "feature_maps": "FeatureMaps",
    "kernels": "Kernels",
    "activation_statistics": "ActivationStatistics",
    "bad_numbers": "BadNumbers",
    "weight_average": "WeightAverage",
}
# what a recipe may say that only training heeds
TRAINING_ONLY = (
    "optimizer",
    "schedule",
    *CALLBACK_GROUPS,
    *(name for name, option in GENERAL.items() if option.only == "fit"),
)


class Kind(NamedTuple):
    """What class a setting names.

    Attributes:
        base: What it is derived from.
        modules: Where classes are found by their name alone.
    """

    base: str
    modules: tuple[str, ...]


CLASS_GROUPS = {
    "model": Kind("ImageClassifier", ("cnn_lightning.classifiers",)),
    "data": Kind("ImageDataModule", ("cnn_lightning.data",)),
    "optimizer": Kind("Optimizer", ("cnn_lightning.optim", "torch.optim")),
    "schedule": Kind("LRScheduler", ("cnn_lightning.optim", "torch.optim.lr_scheduler")),
}
