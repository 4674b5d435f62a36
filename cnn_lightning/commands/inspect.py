"""`inspect`: what the layers of a trained network make of some images, and where they look."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from cnn_lightning.analysis.activations import channels_first, record_outputs
from cnn_lightning.analysis.attribution import (
    MIN_CELLS,
    MIRRORS,
    Mirrors,
    find_cam_layer,
    grad_cam,
    occlusion,
)
from cnn_lightning.analysis.health import measure_layers
from cnn_lightning.analysis.layers import ACTIVATIONS, named_layers, select_layers
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.commands.loading import find_path, load_classifier, load_data
from cnn_lightning.commands.parser import Parser
from cnn_lightning.commands.subjects import Subjects, choose_validation, read_files
from cnn_lightning.console import say
from cnn_lightning.errors import UserError
from cnn_lightning.figures import Sheet, draw_feature_maps, draw_kernels, to_png
from cnn_lightning.figures.layer_statistics import (
    MAX_LAYERS,
    LayerLine,
    draw_layer_statistics,
)
from cnn_lightning.figures.overlays import (
    MAX_IMAGES,
    NUM_RANKED,
    Evidence,
    Explained,
    draw_overlays,
)
from cnn_lightning.files import write_bytes
from cnn_lightning.networks import Network
from cnn_lightning.preprocessing import Preprocessing
from cnn_lightning.runs import folder_of

# the occluding square: a quarter of the image's side, moved by half of its own
_WINDOW, _STRIDE = 4, 8
_BATCH = 100


def main(command: str, argv: list[str]) -> int:
    """Run `inspect`; returns the exit code."""
    arguments = _parse(command, argv)
    path = find_path(arguments.checkpoint, arguments.run, Path(arguments.log_dir))
    classifier = load_classifier(path)
    layers = select_layers(classifier.network, arguments.layers)
    if arguments.images:
        subjects = read_files(arguments.images, arguments.labels, classifier, arguments.num_images)
    else:
        data = load_data(path, **Parser.moved_data(arguments))
        subjects = choose_validation(data, classifier, arguments.num_images)
    folder = _output_folder(arguments.output, path)
    for name, figure in _draw(classifier, layers, subjects, arguments):
        picture = folder / f"{name}.png"
        write_bytes(picture, to_png(figure))
        say(str(picture))
    return 0


def _parse(command: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        command,
        "Draw what a trained network makes of some images: where it finds the evidence for the "
        "predicted and the true class (Grad-CAM and occlusion), the outputs and kernels of its "
        "layers, and their statistics. Writes PNG files.",
    )
    parser.add_checkpoint()
    parser.add_argument(
        "--images", nargs="+", metavar="FILE|FOLDER",
        help="images to look at (default: validation images of the data it was trained on)",
    )  # fmt: skip
    parser.add_argument(
        "--labels", nargs="+", metavar="CLASS",
        help="true class of each of --images, or one for all",
    )  # fmt: skip
    parser.add_argument(
        "--num_images", type=_positive, default=4,
        help="validation images, or images of each folder (default: 4)",
    )  # fmt: skip
    parser.add_argument(
        "--layers", nargs="+", default=["all"], metavar="LAYERS",
        help="for feature maps and kernels: first, last or all of the convolutions, a class such "
        "as MaxPool2d, or patterns of names such as 'backbone.layer1.*' (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--max_channels", type=_positive, default=64,
        help="channels and kernels drawn of each layer (default: 64)",
    )  # fmt: skip
    parser.add_argument(
        "--cam_layer", metavar="LAYER",
        help="layer that Grad-CAM explains (default: the deepest of at least "
        f"{MIN_CELLS}×{MIN_CELLS} cells)",
    )  # fmt: skip
    parser.add_argument(
        "--mirrors", choices=MIRRORS, default="none",
        help="mirror images that Grad-CAM is averaged over too: horizontal for photographs, both "
        "where up and down are alike as well (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="FOLDER",
        help="where the files go (default: figures/inspect of the checkpoint's run)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.labels and not arguments.images:
        raise UserError("--labels without --images", "validation images know their classes")
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _output_folder(asked: str | None, path: Path) -> Path:
    if asked is not None:
        return Path(asked)
    run = folder_of(path)
    if run is None:
        raise UserError(f"{path} lies in no run folder", "say where the files go: --output FOLDER")
    return run.figures / "inspect"


def _draw(
    classifier: ImageClassifier,
    layers: dict[str, nn.Module],
    subjects: Subjects,
    arguments: argparse.Namespace,
) -> Iterator[tuple[str, Figure | Sheet]]:
    """All figures, each with the name of its file."""
    preprocessing = classifier.preprocessing
    if preprocessing is None:
        raise UserError("the checkpoint does not know how its images are prepared", "train it")
    prepared = preprocessing(subjects.images)
    outputs = record_outputs(classifier.network, layers, prepared)
    for name, output in outputs.items():
        if output.ndim != 4:
            raise UserError(
                f"layer {name} puts out {tuple(output.shape)}: no maps to draw",
                "choose convolutions, activations or poolings",
            )
    yield from _draw_evidence(
        classifier, subjects, prepared, arguments.cam_layer, arguments.mirrors
    )
    yield from _draw_statistics(classifier, subjects, preprocessing)
    seen = preprocessing.undo(prepared)
    names = _with_truth(subjects, classifier)
    for name, output in outputs.items():
        yield (
            f"feature_maps/{name}",
            draw_feature_maps(
                seen,
                channels_first(output, prepared),
                f"Output of {name}",
                names=names,
                max_channels=arguments.max_channels,
            ),
        )
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d):
            yield (
                f"kernels/{name}",
                draw_kernels(
                    layer.weight,
                    f"Kernels of {name}",
                    max_kernels=arguments.max_channels,
                    sees_image=layer is classifier.network.first_conv,
                ),
            )


def _with_truth(subjects: Subjects, classifier: ImageClassifier) -> list[str]:
    if subjects.labels is None or classifier.class_names is None:
        return subjects.names
    classes = [classifier.class_names[label] for label in subjects.labels]
    return [f"{name}\n{true}" for name, true in zip(subjects.names, classes, strict=True)]


def _draw_evidence(
    classifier: ImageClassifier,
    subjects: Subjects,
    prepared: Tensor,
    cam_layer: str | None,
    mirrors: Mirrors,
) -> Iterator[tuple[str, Figure]]:
    name = cam_layer or _choose_layer(classifier.network, prepared)
    explained = explain(classifier, subjects, prepared, name, mirrors=mirrors)
    for number, start in enumerate(range(0, len(explained), MAX_IMAGES)):
        figure = draw_overlays(explained[start : start + MAX_IMAGES], cam_layer=name)
        yield f"overlays_{number + 1}" if number else "overlays", figure


def explain(
    classifier: ImageClassifier,
    subjects: Subjects,
    prepared: Tensor,
    cam_layer: str,
    *,
    mirrors: Mirrors = "none",
) -> list[Explained]:
    """The evidence for the predicted and the true class of each image.

    Args:
        classifier: In eval mode.
        subjects: The images.
        prepared: N×C×H×W float, the same as the network takes them.
        cam_layer: Name of the layer that Grad-CAM explains.
        mirrors: As for `grad_cam`.

    Raises:
        UserError: `cam_layer` is not one layer, or has no maps.
    """
    names = classifier.class_names or tuple(map(str, range(classifier.num_classes)))
    layer = _find_layer(classifier.network, cam_layer, prepared)
    gather = partial(_gather_evidence, classifier.network, layer, names=names, mirrors=mirrors)
    probabilities = classifier.predict_images(subjects.images).probabilities
    shares, classes = probabilities.topk(min(NUM_RANKED, len(names)), dim=1)
    predicted = classes[:, 0]
    of_predicted = gather(prepared, predicted)
    of_true: list[Evidence | None] = [None] * len(prepared)
    if subjects.labels is not None:
        labels = torch.tensor(subjects.labels)
        wrong = (labels != predicted).nonzero().flatten()
        more = gather(prepared[wrong], labels[wrong])
        of_true = [*of_predicted]
        for place, evidence in zip(wrong.tolist(), more, strict=True):
            of_true[place] = evidence
    return [
        Explained(
            subjects.images[place],
            subjects.names[place],
            [
                (names[label], share)
                for label, share in zip(
                    classes[place].tolist(), shares[place].tolist(), strict=True
                )
            ],
            of_predicted[place],
            of_true[place],
        )
        for place in range(len(prepared))
    ]


def _choose_layer(network: Network, prepared: Tensor) -> str:
    if network.first_conv is None:
        raise UserError(
            f"Grad-CAM: {network.title} has no convolutions",
            "inspect looks at these; if another of its layers puts out maps, name it with "
            "--cam_layer",
        )
    try:
        return find_cam_layer(network, prepared)
    except ValueError as error:
        raise UserError(f"Grad-CAM: {error}", "name a layer with --cam_layer") from error


def _find_layer(network: nn.Module, name: str, prepared: Tensor) -> nn.Module:
    found = select_layers(network, name)
    if len(found) != 1:
        raise UserError(
            f"--cam_layer {name} is {len(found)} layers: {', '.join(found)}", "name one"
        )
    if any(output.ndim != 4 for output in record_outputs(network, found, prepared[:1]).values()):
        raise UserError(
            f"--cam_layer {name} puts out no maps", "name a convolution, activation or block"
        )
    return found[next(iter(found))]


def _gather_evidence(
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    names: Sequence[str],
    mirrors: Mirrors,
) -> list[Evidence]:
    if not len(images):
        return []
    side = min(images.shape[2:])
    window, stride = max(1, side // _WINDOW), max(1, side // _STRIDE)
    cams = grad_cam(network, layer, images, targets, mirrors=mirrors)
    falls = occlusion(network, images, targets, window=window, stride=stride)
    return [
        Evidence(names[target], cam, fall)
        for target, cam, fall in zip(targets.tolist(), cams, falls, strict=True)
    ]


def _draw_statistics(
    classifier: ImageClassifier, subjects: Subjects, preprocessing: Preprocessing
) -> Iterator[tuple[str, Figure]]:
    layers = named_layers(classifier.network)
    chosen = {name: layer for name, layer in layers.items() if isinstance(layer, ACTIVATIONS)}
    batches = (preprocessing(images) for images in torch.split(subjects.measured, _BATCH))
    found = measure_layers(classifier.network, chosen, batches)
    lines = [
        LayerLine(name, layer.mean, layer.std, layer.dead, layer.saturated)
        for name, layer in found.items()
    ]
    for number, start in enumerate(range(0, len(lines), MAX_LAYERS)):
        figure = draw_layer_statistics(
            lines[start : start + MAX_LAYERS],
            f"Outputs of the activation functions over {subjects.measured_name}",
        )
        yield f"layers_{number + 1}" if number else "layers", figure
