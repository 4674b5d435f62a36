"""A trained classifier as one file for other programs, kept only if it gives the same."""

import copy
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from typing_extensions import override

from cnn_lightning.analysis.activations import evaluating
from cnn_lightning.augment import Views, average_views
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.errors import RunError, UserError
from cnn_lightning.files import appearing_whole
from cnn_lightning.networks import Network
from cnn_lightning.preprocessing import Preprocessing

FORMAT_VERSION = 1
# the first in which Resize antialiases, as `Preprocessing` does; torch's exporter writes it without
# converting, and onnxruntime reads it since 1.14
OPSET = 18
PROBABILITY_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 1e-3  # of the largest logit: they have no unit of their own
INPUT, OUTPUTS = "images", ("probabilities", "logits")

_TRACED = 2  # images; with 1, torch.export takes the batch for a constant
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Check(NamedTuple):
    """How an exported file compares with the classifier that it was made of.

    Attributes:
        batch_sizes: Those that were run, ascending.
        probabilities: Largest difference of a probability.
        logits: Largest difference of a logit, relative to the largest logit, at least 1.
    """

    batch_sizes: list[int]
    probabilities: float
    logits: float


class Deployed(nn.Module):
    """What an exported file computes: images to probabilities N×K and logits N×K, both float32.

    Args:
        network: In eval mode.
        preprocessing: Prepares images uint8; `None` if they come prepared.
        views: Of each image, over which the logits are averaged, as `test` and `predict` do.
    """

    def __init__(
        self, network: Network, preprocessing: Preprocessing | None, views: Views = "none"
    ) -> None:
        super().__init__()
        # the weights channel by channel, as files hold them; torch.export warns of other layouts
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        self.preprocessing = preprocessing
        self.views: Views = views

    @override
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        prepared = images if self.preprocessing is None else self.preprocessing(images)
        logits = average_views(self.network, prepared, self.views)
        return logits.softmax(1), logits


def export_classifier(
    classifier: ImageClassifier, path: Path, images: Tensor, *, preprocess: bool = True
) -> Check:
    """Write a classifier as ONNX or `torch.export` program, if it gives what the classifier gives.

    The batch size stays open; height and width are those of the training images, since a resize to
    any size would not give Pillow's bits.

    Args:
        classifier: On the CPU; one that knows its images.
        path: Ends with `.onnx` or `.pt2`.
        images: N×C×H×W uint8 of the size of the training images, at least one. Batches of 1, 2, 3
            and N of them are compared, repeated where they are too few.
        preprocess: Whether the file takes images uint8, as they are, or float32, prepared.

    Returns:
        How far the two are apart.

    Raises:
        UserError: The ending is another, a package is missing, or the classifier has seen no data.
        RunError: The network cannot be exported, or the file's outputs differ by more than 1e-4
            for a probability or 1e-3 of the largest logit. No file is left then.
        OSError: The file cannot be written.
    """
    write, read = _find_format(path)
    facts = describe(classifier, preprocess=preprocess)
    inputs = images if preprocess else cast(Preprocessing, classifier.preprocessing)(images)
    with evaluating(classifier):
        prepared = cast(Preprocessing, classifier.preprocessing)(images)
        expected = classifier.test_logits(prepared).float()
    program = _trace(classifier, inputs, preprocess=preprocess)
    with appearing_whole(path) as part:
        try:
            write(program, facts, part)
        except OSError:
            raise
        except Exception as error:
            raise _not_exportable(classifier, error) from error
        _synchronize(part)
        return compare(read(part), inputs, expected)


def describe(classifier: ImageClassifier, *, preprocess: bool) -> dict[str, str]:
    """What goes into a file beside the network, each value as JSON.

    Raises:
        UserError: The classifier has seen no data yet.
    """
    preprocessing, shape = classifier.preprocessing, classifier.image_shape
    if preprocessing is None or shape is None or classifier.class_names is None:
        raise UserError("the checkpoint does not know its images", "train it once more")
    channels, height, width = shape
    if not preprocess and preprocessing.size is not None:
        height = width = preprocessing.size
    known = {
        "format_version": FORMAT_VERSION,
        "class_names": list(classifier.class_names),
        "input": {
            "name": INPUT,
            "shape": ["batch", channels, height, width],
            "dtype": "uint8" if preprocess else "float32",
            "values": "0..255" if preprocess else "(value / 255 - mean) / std of each channel",
            "channels": channels,
            "height": height,
            "width": width,
            "mode": "L" if channels == 1 else "RGB",  # as Pillow calls it
        },
        "preprocessing": {**preprocessing.as_dict(), "inside": preprocess},
        "test_augment": classifier.test_augment,  # always inside
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in known.items()}


def compare(run: Callable[[Tensor], list[Tensor]], inputs: Tensor, expected: Tensor) -> Check:
    """Run batches of several sizes, and hold them against what is known.

    Args:
        run: Images to probabilities and logits.
        inputs: N images.
        expected: N×K logits.

    Raises:
        RunError: A batch fails, or differs by more than the tolerances.
    """
    sizes = sorted({1, _TRACED, 3, len(inputs)})
    scale = max(1.0, float(expected.abs().max()))
    worst = [0.0, 0.0]
    for size in sizes:
        chosen = torch.arange(size) % len(inputs)
        try:
            found = run(inputs[chosen])
        except Exception as error:
            raise RunError(
                f"the exported network does not run on a batch of {size}: {_first_line(error)}",
                _NOT_KEPT,
            ) from error
        wanted = (expected[chosen].softmax(1), expected[chosen] / scale)
        apart = [
            float((one - other).abs().max())
            for one, other in zip((found[0], found[1] / scale), wanted, strict=True)
        ]
        # so written that NaN fails
        if not (apart[0] <= PROBABILITY_TOLERANCE and apart[1] <= LOGIT_TOLERANCE):
            raise RunError(
                f"the exported network differs on a batch of {size}: probabilities by "
                f"{apart[0]:.2g} (tolerance {PROBABILITY_TOLERANCE:g}), logits by {apart[1]:.2g} "
                f"of the largest (tolerance {LOGIT_TOLERANCE:g})",
                _NOT_KEPT,
            )
        worst = [max(pair) for pair in zip(worst, apart, strict=True)]
    return Check(sizes, *worst)


_NOT_KEPT = "no file was written; CNN_LIGHTNING_DEBUG=1 shows more"

_Writer = Callable[[ExportedProgram, dict[str, str], Path], None]
_Reader = Callable[[Path], Callable[[Tensor], list[Tensor]]]


def _find_format(path: Path) -> tuple[_Writer, _Reader]:
    if path.suffix == ".pt2":
        return _write_pt2, _read_pt2
    if path.suffix != ".onnx":
        raise UserError(f"{path} ends with neither .onnx nor .pt2", "give it one of these endings")
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"ONNX needs the package {name}: {error}", "pip install 'cnn-lightning[export]'"
            ) from error
    return _write_onnx, _read_onnx


def _trace(classifier: ImageClassifier, inputs: Tensor, *, preprocess: bool) -> ExportedProgram:
    deployed = Deployed(
        classifier.network,
        classifier.preprocessing if preprocess else None,
        classifier.test_augment,
    )
    example = inputs[torch.arange(_TRACED) % len(inputs)]
    with evaluating(deployed):
        try:
            program = torch.export.export(
                deployed, (example,), dynamic_shapes={INPUT: {0: Dim("batch")}}
            )
        except Exception as error:
            raise _not_exportable(classifier, error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the folders of this machine
    return program


def _not_exportable(classifier: ImageClassifier, error: Exception) -> RunError:
    what = f"{type(classifier).__name__} cannot be exported: {_first_line(error)}"
    return RunError(what, _NOT_KEPT)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _write_onnx(program: ExportedProgram, facts: dict[str, str], path: Path) -> None:
    import onnx

    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        verbose=False,  # it prints its progress
    )
    model = cast(Any, exported).model_proto
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param == symbol:
                side.dim_param = "batch"
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _read_onnx(path: Path) -> Callable[[Tensor], list[Tensor]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        found = session.run(list(OUTPUTS), {INPUT: images.contiguous().numpy()})
        return [torch.from_numpy(values) for values in found]

    return run


def _write_pt2(program: ExportedProgram, facts: dict[str, str], path: Path) -> None:
    with path.open("wb") as stream:
        torch.export.save(program, stream, extra_files=dict(facts))


def _read_pt2(path: Path) -> Callable[[Tensor], list[Tensor]]:
    with path.open("rb") as stream:
        module = torch.export.load(stream).module()

    def run(images: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return list(module(images))

    return run


def _synchronize(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
