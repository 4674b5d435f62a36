"""A compiled network trains as it does uncompiled, under the same names, and can be looked at."""

from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from small import UNDRAWN, narrow_networks
from torch import Tensor, nn

from cnn_lightning import ActivationStatistics, FeatureMaps, Inception, LeNet, ShapesDataModule
from cnn_lightning.callbacks import Compilation
from cnn_lightning.callbacks.compilation import parts_to_compile
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.cli import main
from cnn_lightning.errors import UserError
from cnn_lightning.networks import AirbenchNetwork, GoogLeNet, LeNet5
from cnn_lightning.networks.layers import ConvBlock

pytestmark = pytest.mark.filterwarnings("default")

CONFIG = """
data:
  class_path: ShapesDataModule
  # 70 training images in batches of one size, and 10 of validation
  init_args: {num_images: 80, num_test: 20, batch_size: 14}
model: {class_path: LeNet, init_args: {dropout: 0.5, batch_norm: true, activation: relu}}
trainer: {max_epochs: 1, accelerator: cpu, enable_model_summary: false}
"""


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


def fit(tmp_path: Path, name: str, *flags: str) -> dict[str, object]:
    config = tmp_path / "small.yaml"
    config.write_text(CONFIG)
    argv = ["fit", "--config", str(config), "--log_dir", str(tmp_path / name), *flags]
    assert main(argv) == 0
    run = tmp_path / name / "small/version_0"
    assert list(run.glob("figures/feature_maps*/*")) or list(run.glob("figures/**/*.png"))
    found: dict[str, object] = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return found


def test_compiled_run_ends_with_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch._dynamo.utils.counters.clear()
    plain = fit(tmp_path, "plain", *UNDRAWN)["state_dict"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    compiled = fit(tmp_path, "compiled", "--compile", "aot_eager")["state_dict"]
    assert "compiled by aot_eager" in capsys.readouterr().out
    assert plain.keys() == compiled.keys()  # type: ignore[attr-defined]
    for key, value in plain.items():  # type: ignore[attr-defined]
        # the same operations, of which autograd may add up gradients in another order
        assert torch.allclose(value, compiled[key], rtol=1e-4, atol=1e-5), key  # type: ignore[index]


def test_the_network_is_really_compiled_and_looked_at_uncompiled(tmp_path: Path) -> None:
    classifier = LeNet(num_classes=10)
    looking = [FeatureMaps(every_n_epochs=1), ActivationStatistics()]
    torch._dynamo.utils.counters.clear()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[*looking, Compilation("eager")],
    )
    trainer.fit(classifier, ShapesDataModule(num_images=80, num_test=20, batch_size=16))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    (table,) = tmp_path.rglob("metrics.csv")
    assert "activations/mean/backbone.act1" in table.read_text().splitlines()[0]


def test_it_is_compiled_for_training_and_validation_alone(tmp_path: Path) -> None:
    torch._dynamo.utils.counters.clear()
    fit(tmp_path, "run", "--compile", "eager", "--model.test_augment", "flip_shift")
    assert list(tmp_path.glob("run/small/version_0/figures/validation_predictions.png"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_auxiliary_heads_are_compiled_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_networks(monkeypatch)
    network = GoogLeNet(3, 3, stem="small")
    # two blocks of many branches are enough
    network.backbone.inception4d = ConvBlock(512, 528, 1)
    network.backbone.inception5b = ConvBlock(528, 1024, 1)
    assert parts_to_compile(LeNet5(3)) != parts_to_compile(network)
    torch._dynamo.utils.counters.clear()
    images = torch.randn(2, 3, 16, 16)
    network.eval()
    plain, plain_auxiliary = network.auxiliary_logits(images)
    for part in parts_to_compile(network):
        part.compile(backend="eager")
    logits, auxiliary = network.auxiliary_logits(images)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 9
    assert torch.allclose(logits, plain, atol=1e-5)
    for one, other in zip(auxiliary, plain_auxiliary, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_names_of_weights_stay(tmp_path: Path) -> None:
    classifier: ImageClassifier = Inception(num_classes=3, version="googlenet", stem="small")
    before = list(classifier.state_dict())
    for part in parts_to_compile(classifier.network):
        part.compile(backend="eager")
    assert list(classifier.state_dict()) == before


def test_modes_are_told_from_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: asked.append(how))
    for name in ("max-autotune-no-cudagraphs", "aot_eager"):
        Compilation(name).compile(LeNet5(3))
    assert asked == [{"mode": "max-autotune-no-cudagraphs"}, {"backend": "aot_eager"}]
    with pytest.raises(UserError, match="reduce-overhead"):
        Compilation("fast")


@pytest.mark.slow
def test_gradients_of_airbench_compiled_in_bfloat16_are_those_of_uncompiled() -> None:
    torch.manual_seed(0)
    network = AirbenchNetwork(10, widths=(8, 8, 8))
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10

    def kernel_gradients() -> list[Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
        return [kernel.grad.clone() for kernel in kernels if kernel.grad is not None]

    plain = kernel_gradients()
    Compilation().compile(network)
    for one, other in zip(kernel_gradients(), plain, strict=True):
        assert (one - other).norm() < 0.1 * other.norm()


@pytest.mark.slow
def test_compiled_by_inductor_it_trains(tmp_path: Path) -> None:
    # inductor draws what dropout drops in a way of its own; later, rounding can turn a ReLU over
    more = ["--model.dropout", "0", "--trainer.limit_train_batches", "4"]
    plain = fit(tmp_path, "plain", *more)["state_dict"]
    compiled = fit(tmp_path, "compiled", *more, "--compile", "true")["state_dict"]
    for key, value in plain.items():  # type: ignore[attr-defined]
        assert torch.allclose(value, compiled[key], rtol=1e-3, atol=1e-5), key  # type: ignore[index]


@pytest.mark.parametrize(
    ("backend", "device", "batches", "is_refused"),
    [
        ("reduce-overhead", "cuda", 2, True),
        ("max-autotune", "cuda", 2, True),
        ("reduce-overhead", "cuda", 1, False),
        ("reduce-overhead", "cpu", 2, False),
        ("max-autotune-no-cudagraphs", "cuda", 2, False),
        ("inductor", "cuda", 2, False),
    ],
)
def test_gradients_are_not_added_up_by_cuda_graphs(
    backend: str, device: str, batches: int, *, is_refused: bool
) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, accumulate_grad_batches=batches)
    trainer.strategy._root_device = torch.device(device)  # type: ignore[attr-defined]
    refusal = (
        pytest.raises(UserError, match="do not add up over 2") if is_refused else nullcontext()
    )
    with refusal:
        Compilation(backend).setup(trainer, LeNet(num_classes=10), "fit")
