"""`export`: a checkpoint as a file that runs without this package."""

import argparse
from pathlib import Path

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.commands.loading import find_path, load_classifier, load_data
from cnn_lightning.commands.parser import Parser
from cnn_lightning.commands.subjects import Subjects, choose_validation, read_files
from cnn_lightning.console import say
from cnn_lightning.errors import UserError
from cnn_lightning.exporting import OPSET, PROBABILITY_TOLERANCE, export_classifier
from cnn_lightning.files import explain_disk_failure

_FORMATS = ("onnx", "pt2")
_NUM_IMAGES = 16


def main(command: str, argv: list[str]) -> int:
    """Run `export`; returns the exit code."""
    arguments = _parse(command, argv)
    output = _choose_output(arguments.output, arguments.format)
    path = find_path(arguments.checkpoint, arguments.run, Path(arguments.log_dir))
    classifier = load_classifier(path)
    subjects, told = _choose_images(classifier, path, arguments)
    try:
        check = export_classifier(
            classifier, output, subjects.images, preprocess=arguments.preprocess
        )
    except OSError as error:
        if explain_disk_failure(error) is not None:
            raise
        raise UserError(
            f"{output} cannot be written: {error.strerror or error}", "give another --output"
        ) from error
    channels, height, width = subjects.images.shape[1:]
    takes = f"raw uint8 images N×{channels}×{height}×{width}"
    if not arguments.preprocess:
        takes = "prepared float32 images (see `preprocessing` in its metadata)"
    kind = f"ONNX, opset {OPSET}" if output.suffix == ".onnx" else "torch.export"
    gives = f"probabilities and logits N×{classifier.num_classes}"
    if classifier.test_augment != "none":
        gives += f", means over the views of test_augment: {classifier.test_augment}"
    say(f"{kind}: takes {takes}, gives {gives}")
    say(
        f"checked on {told}, in batches of {', '.join(map(str, check.batch_sizes))}: probabilities "
        f"differ by {check.probabilities:.1e} at most (tolerance {PROBABILITY_TOLERANCE:g})"
    )
    say(str(output))
    return 0


def _parse(command: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        command,
        "Write a checkpoint as one file that runs without this package: ONNX, or a program of "
        "torch.export. Before the file appears, its outputs are compared with the checkpoint's on "
        "real images; the command fails if a probability differs by more than "
        f"{PROBABILITY_TOLERANCE:g}, or if a batch size other than the traced one does not run.",
    )
    parser.add_checkpoint()
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="where to: FILE.onnx or FILE.pt2"
    )
    parser.add_argument(
        "--format", choices=_FORMATS, help="kind of file (default: what --output ends with)"
    )
    parser.add_argument(
        "--preprocess", type=_truth, default=True, metavar="true|false",
        help="whether the file normalises and resizes, so that it takes raw uint8 images of the "
        "training size; with false it takes float32 images that are prepared (default: true)",
    )  # fmt: skip
    parser.add_argument(
        "--images", nargs="+", metavar="FILE|FOLDER",
        help="images to compare on (default: validation images of the data it was trained on)",
    )  # fmt: skip
    return parser.parse_args(argv)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text == "true"


def _choose_output(output: Path, asked: str | None) -> Path:
    ending = output.suffix.removeprefix(".")
    if ending not in _FORMATS or (asked is not None and asked != ending):
        wanted = f".{asked}" if asked else " or ".join(f".{name}" for name in _FORMATS)
        raise UserError(f"--output {output} does not end with {wanted}", f"give FILE{wanted}")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder", "give the path of a file")
    return output


def _choose_images(
    classifier: ImageClassifier, path: Path, arguments: argparse.Namespace
) -> tuple[Subjects, str]:
    """The images to compare on, and what they are."""
    if arguments.images:
        subjects = read_files(arguments.images, None, classifier, _NUM_IMAGES)
        names = ", ".join(subjects.names[:3]) + (", …" if len(subjects.names) > 3 else "")
        return subjects, f"{_count(subjects, 'image file')} ({names})"
    try:
        data = load_data(path, **Parser.moved_data(arguments))
        subjects = choose_validation(data, classifier, _NUM_IMAGES)
    except UserError as error:
        raise UserError(
            f"no images to check the file on: {error.what}",
            f"{error.remedy}; or name some with --images FILE|FOLDER",
        ) from error
    return subjects, f"{_count(subjects, 'validation image')} of {type(data).__name__}"


def _count(subjects: Subjects, what: str) -> str:
    number = len(subjects.images)
    return f"{number} {what}{'' if number == 1 else 's'}"
