"""An exported file gives what the classifier gives, for every classifier, or there is no file."""

import functools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cnn_lightning import classifiers, exporting
from cnn_lightning.augment import Views
from cnn_lightning.classifiers import (
    VGG16,
    Airbench,
    ImageClassifier,
    Inception,
    LeNet,
    ResNet,
    TorchvisionClassifier,
)
from cnn_lightning.data import MNISTDataModule, ShapesDataModule
from cnn_lightning.errors import RunError, UserError
from cnn_lightning.exporting import Check, compare, export_classifier
from cnn_lightning.networks import resnet

pytestmark = pytest.mark.usefixtures("onnx_operators")

# for each class, networks of each kind that it builds; sizes other than 32 are resized in the file
ROWS: dict[str, Callable[[], ImageClassifier]] = {
    "LeNet": lambda: LeNet(10, pooling="max", batch_norm=True, dropout=0.5),
    "LeNet made smaller": lambda: LeNet(10, image_size=28),
    "VGG16": lambda: VGG16(10),
    "Airbench": lambda: Airbench(10, widths=(8, 16)),
    "ResNet": lambda: ResNet(10),  # with a block a stage
    "Inception googlenet": lambda: Inception(10, version="googlenet", stem="small"),
    "Inception v3": lambda: Inception(10, version="v3", image_size=75),
    "TorchvisionClassifier squeezenet": lambda: TorchvisionClassifier(
        10, name="squeezenet1_1", image_size=64
    ),
    "TorchvisionClassifier alexnet": lambda: TorchvisionClassifier(10, name="alexnet"),
}
# files of 20 MB and more beside another of them, or graphs of hundreds of nodes
LARGE = ("VGG16", "Inception googlenet", "Inception v3", "TorchvisionClassifier alexnet")
# both endings are written of the same trace
IN_ONE_ENDING = ("ResNet", "TorchvisionClassifier squeezenet")


def every_row(slow: Sequence[str]) -> pytest.MarkDecorator:
    marks = {name: [pytest.mark.slow] if name in slow else [] for name in ROWS}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in ROWS])


def build(name: str) -> ImageClassifier:
    """An untrained network whose batch norms know statistics."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet._STAGES, 18, ((1, 1, 1, 1), False))
        classifier = ROWS[name]()
    data = ShapesDataModule(num_images=60, num_test=20)
    classifier.adapt_to(data)
    with torch.no_grad():
        classifier.network(data.prepare(data.load("train")[0][:20]))  # in train mode
    return classifier.eval()


def draw(num_images: int = 5) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randint(256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=draws)


def test_every_classifier_has_a_row() -> None:
    found = {
        name
        for name in classifiers.__all__
        if isinstance(kind := getattr(classifiers, name), type)
        and issubclass(kind, ImageClassifier)
        and kind is not ImageClassifier
    }
    assert found == {name.split()[0] for name in ROWS}


def assert_same_answers(
    classifier: ImageClassifier, images: Tensor, found: Sequence[Tensor]
) -> None:
    probabilities, logits = found
    assert (probabilities - classifier.predict_images(images).probabilities).abs().max() < 1e-4
    assert classifier.preprocessing is not None
    with torch.no_grad():
        expected = classifier(classifier.preprocessing(images))
    # probabilities of an untrained network are much alike: the difference is to be far below what
    # tells one image from another
    assert (logits - expected).abs().max() < 0.01 * expected.std(0).max()


class Exported(NamedTuple):
    """A file, what it was made of, and what its check found."""

    classifier: ImageClassifier
    path: Path
    check: Check


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Exported]:
    """Write a file of four images for a row and an ending, once."""

    @functools.cache
    def export(name: str, ending: str) -> Exported:
        path, classifier = tmp_path_factory.mktemp(ending) / f"model.{ending}", build(name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return Exported(classifier, path, export_classifier(classifier, path, draw()[:4]))

    return export


@every_row(slow=LARGE)
def test_onnx_file_gives_what_prediction_gives(
    name: str, exported: Callable[[str, str], Exported]
) -> None:
    classifier, path, check = exported(name, "onnx")
    images = draw()
    assert check.batch_sizes == [1, 2, 3, 4]
    session = onnxruntime.InferenceSession(path)
    # a size of batch and an image that the check has not seen
    found = session.run(None, {"images": images.numpy()})
    assert_same_answers(classifier, images, list(map(torch.from_numpy, found)))


@every_row(slow=(*LARGE, *IN_ONE_ENDING))
def test_torch_export_file_gives_what_prediction_gives(
    name: str, exported: Callable[[str, str], Exported]
) -> None:
    classifier, path, _ = exported(name, "pt2")
    images = draw()
    extra = {"class_names": "", "input": ""}
    module = torch.export.load(path, extra_files=extra).module()
    assert_same_answers(classifier, images, module(images))
    assert json.loads(extra["class_names"]) == list(ShapesDataModule.class_names)


@pytest.fixture
def pooled() -> ImageClassifier:
    """Few layers, quickly traced, of which the last tells images apart."""
    classifier = build("LeNet made smaller")
    torch.manual_seed(0)
    classifier.network.backbone = nn.Sequential(nn.AvgPool2d(7), nn.Flatten())
    classifier.network.head = nn.Linear(3 * 4 * 4, 10)
    return classifier


def test_onnx_file_describes_itself(exported: Callable[[str, str], Exported]) -> None:
    lenet, path, _ = exported("LeNet made smaller", "onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    shape = [
        side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim
    ]
    assert shape == ["batch", 3, 32, 32]
    assert [output.name for output in model.graph.output] == ["probabilities", "logits"]
    facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(facts["format_version"]) == 1
    assert json.loads(facts["class_names"]) == list(ShapesDataModule.class_names)
    wanted = json.loads(facts["input"])
    assert (wanted["shape"], wanted["dtype"]) == (["batch", 3, 32, 32], "uint8")
    assert lenet.preprocessing is not None
    assert json.loads(facts["preprocessing"]) == {**lenet.preprocessing.as_dict(), "inside": True}


@pytest.mark.parametrize(
    ("ending", "preprocess", "views"), [("onnx", True, "flip_shift"), ("pt2", False, "flip")]
)
def test_file_looks_at_an_image_as_often_as_prediction_does(
    ending: str, preprocess: bool, views: Views, pooled: ImageClassifier, tmp_path: Path
) -> None:
    path, images = tmp_path / f"model.{ending}", draw()
    once = pooled.predict_images(images).probabilities
    pooled.test_augment = views
    export_classifier(pooled, path, images, preprocess=preprocess)
    expected = pooled.predict_images(images).probabilities
    assert (expected - once).abs().max() > 1e-3
    if ending == "onnx":
        session = onnxruntime.InferenceSession(path)
        facts = session.get_modelmeta().custom_metadata_map
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    else:
        facts = {"test_augment": ""}
        assert pooled.preprocessing is not None
        program = torch.export.load(path, extra_files=facts)
        found = program.module()(pooled.preprocessing(images).contiguous())[0]
    assert (found - expected).abs().max() < 1e-4
    assert json.loads(facts["test_augment"]) == views


def test_grey_images_stay_grey(tmp_path: Path) -> None:
    classifier = LeNet(10, in_channels=1)
    classifier.adapt_to(MNISTDataModule(sample=True))
    images, path = draw()[:, :1, :28, :28], tmp_path / "model.pt2"
    export_classifier(classifier.eval(), path, images)
    facts = {"input": ""}
    torch.export.load(path, extra_files=facts)
    assert json.loads(facts["input"])["mode"] == "L"


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_files_name_no_folder_of_the_machine_that_made_them(
    ending: str, exported: Callable[[str, str], Exported]
) -> None:
    content = exported("LeNet made smaller", ending).path.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(exporting.__file__).parent).encode() not in content


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_prepared_images_are_taken_where_asked(
    ending: str, pooled: ImageClassifier, tmp_path: Path
) -> None:
    path, images = tmp_path / f"model.{ending}", draw()
    export_classifier(pooled, path, images, preprocess=False)
    assert pooled.preprocessing is not None
    prepared = pooled.preprocessing(images).contiguous()
    assert prepared.shape[2:] == (28, 28)
    if ending == "onnx":
        session = onnxruntime.InferenceSession(path)
        wanted = json.loads(session.get_modelmeta().custom_metadata_map["input"])
        assert (wanted["dtype"], wanted["shape"]) == ("float32", ["batch", 3, 28, 28])
        found = torch.from_numpy(session.run(None, {"images": prepared.numpy()})[0])
    else:
        found = torch.export.load(path).module()(prepared)[0]
    assert (found - pooled.predict_images(images).probabilities).abs().max() < 1e-4


def test_images_of_another_size_are_refused_by_the_file(
    exported: Callable[[str, str], Exported],
) -> None:
    session = onnxruntime.InferenceSession(exported("LeNet made smaller", "onnx").path)
    with pytest.raises(
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="Got: 40"
    ):
        session.run(None, {"images": torch.zeros(2, 3, 40, 40, dtype=torch.uint8).numpy()})


def test_the_classifier_is_left_as_it_was(tmp_path: Path) -> None:
    lenet = build("LeNet made smaller")
    lenet.train()
    before = {key: value.clone() for key, value in lenet.state_dict().items()}
    layouts = [value.stride() for value in lenet.parameters()]
    export_classifier(lenet, tmp_path / "model.pt2", draw())
    assert all(module.training for module in lenet.modules())
    assert all(torch.equal(value, before[key]) for key, value in lenet.state_dict().items())
    assert [value.stride() for value in lenet.parameters()] == layouts


def test_one_image_is_enough(pooled: ImageClassifier, tmp_path: Path) -> None:
    check = export_classifier(pooled, tmp_path / "model.pt2", draw(1))
    assert check.batch_sizes == [1, 2, 3]


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "out"
    yield folder
    assert not folder.exists() or not list(folder.iterdir())


class Shifted(nn.Module):
    """Adds to one logit in a trace alone, as an operator that is exported wrongly would."""

    def __init__(self, head: nn.Module, shift: float) -> None:
        super().__init__()
        self.head, self.shift = head, shift

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        if torch.compiler.is_compiling():
            logits = logits + self.shift * (torch.arange(logits.shape[1]) == 0)
        return logits


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize("shift", [0.01, float("nan")], ids=str)
def test_file_that_differs_is_not_kept(
    shift: float, ending: str, pooled: ImageClassifier, nothing_left: Path
) -> None:
    pooled.network.head = Shifted(pooled.network.head, shift)
    with pytest.raises(RunError, match=r"differs on a batch of 1: probabilities by"):
        export_classifier(pooled, nothing_left / f"model.{ending}", draw())


def test_smaller_difference_than_the_tolerance_is_kept(
    pooled: ImageClassifier, tmp_path: Path
) -> None:
    pooled.network.head = Shifted(pooled.network.head, 3e-4)
    check = export_classifier(pooled, tmp_path / "model.pt2", draw())
    assert 1e-6 < check.probabilities < 1e-4


class OneSize(nn.Module):
    """A head that in a trace takes two images and no other number."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits + torch.zeros(2, 1) if torch.compiler.is_compiling() else logits


def test_network_of_one_batch_size_is_refused(pooled: ImageClassifier, nothing_left: Path) -> None:
    pooled.network.head = OneSize(pooled.network.head)
    with pytest.raises(RunError, match="LeNet cannot be exported"):
        export_classifier(pooled, nothing_left / "model.onnx", draw())


def test_batch_that_fails_is_named() -> None:
    def run(images: Tensor) -> list[Tensor]:
        if len(images) == 3:
            raise ValueError("shapes do not match\nmore")
        return [images.softmax(1), images]

    logits = torch.rand(4, 10)
    with pytest.raises(RunError, match=r"on a batch of 3: shapes do not match\n  no file"):
        compare(run, logits, logits)
    assert compare(lambda images: [images.softmax(1), images], logits, logits).probabilities == 0


def test_logits_are_compared_too() -> None:
    logits = torch.rand(4, 10)
    shifted = logits + 0.01  # of which probabilities know nothing
    with pytest.raises(RunError, match=r"logits by 0.01 of the largest"):
        compare(lambda images: [images.softmax(1), images], shifted, logits)


def test_failure_leaves_the_file_that_was_there(pooled: ImageClassifier, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"earlier")
    pooled.network.head = Shifted(pooled.network.head, 1.0)
    with pytest.raises(RunError):
        export_classifier(pooled, path, draw())
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_other_endings_are_refused(pooled: ImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither .onnx nor .pt2"):
        export_classifier(pooled, tmp_path / "model.pb", draw())


def test_classifier_that_saw_no_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not know its images"):
        export_classifier(LeNet(10), tmp_path / "model.pt2", draw())
