"""Precision, TF32 and cuDNN: chosen where nothing is said, said, and put back."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace

from cnn_lightning.cli import main
from cnn_lightning.commands.arithmetic import find_slowness, float32_products, settle_arithmetic
from cnn_lightning.memory import memory_kept

SMALL = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 60, num_test: 20, batch_size: 16}
model: LeNet
trainer: {max_steps: 2}
"""


def trainer(**settings: object) -> Namespace:
    left_open = {"accelerator": "auto", "precision": None, "benchmark": None}
    return Namespace(**{**left_open, "deterministic": None, "plugins": None, **settings})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with a GPU; parametrised by whether it has bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    has_bf16 = getattr(request, "param", True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)


@pytest.mark.parametrize(
    ("gpu", "precision"), [(True, "bf16-mixed"), (False, "32-true")], indirect=["gpu"]
)
def test_a_gpu_that_has_bfloat16_uses_it(gpu: None, precision: str) -> None:
    settings = trainer()
    settle_arithmetic(settings, cpu_bf16=False, is_resumed=False)
    assert (settings.precision, settings.benchmark) == (precision, True)


@pytest.mark.usefixtures("gpu")
def test_what_was_asked_for_stays() -> None:
    settings = trainer(precision="32-true", benchmark=False)
    settle_arithmetic(settings, cpu_bf16=False, is_resumed=False)
    assert (settings.precision, settings.benchmark) == ("32-true", False)
    settings = trainer(plugins=["a precision"])
    settle_arithmetic(settings, cpu_bf16=False, is_resumed=False)
    assert settings.precision is None


@pytest.mark.usefixtures("gpu")
def test_on_the_cpu_of_a_machine_with_a_gpu_it_is_float32() -> None:
    settings = trainer(accelerator="cpu")
    settle_arithmetic(settings, cpu_bf16=False, is_resumed=False)
    assert (settings.precision, settings.benchmark) == ("32-true", None)


@pytest.mark.usefixtures("gpu")
def test_a_deterministic_run_tries_no_algorithms() -> None:
    settings = trainer(deterministic=True)
    settle_arithmetic(settings, cpu_bf16=False, is_resumed=False)
    assert settings.benchmark is None


@pytest.mark.usefixtures("gpu")
def test_a_run_that_began_without_saying_goes_on_in_float32() -> None:
    settings = trainer()
    settle_arithmetic(settings, cpu_bf16=False, is_resumed=True)
    assert settings.precision == "32-true"


@pytest.mark.parametrize(
    ("has_bf16", "cpu_bf16", "is_resumed", "precision"),
    [
        (True, True, False, "bf16-mixed"),
        (False, True, False, "32-true"),
        (True, False, False, "32-true"),
        (True, True, True, "32-true"),
    ],
)
def test_a_cpu_computes_in_bfloat16_if_it_is_to_and_can(
    has_bf16: bool,
    cpu_bf16: bool,
    is_resumed: bool,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    settings = trainer(accelerator="cpu")
    settle_arithmetic(settings, cpu_bf16=cpu_bf16, is_resumed=is_resumed)
    assert settings.precision == precision


@pytest.mark.parametrize(
    ("has_bf16", "settings", "is_slow"),
    [
        (False, {"accelerator": "cpu", "precision": "bf16-mixed"}, True),
        (True, {"accelerator": "cpu", "precision": "bf16-mixed"}, False),
        (False, {"accelerator": "cpu", "precision": "32-true"}, False),
        (False, {"accelerator": "gpu", "precision": "bf16-mixed"}, False),
    ],
)
def test_bfloat16_that_the_processor_lacks_is_called_slow(
    has_bf16: bool,
    settings: dict[str, str],
    is_slow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bf16)
    line = find_slowness(trainer(**settings))
    assert (line is not None and "--trainer.precision 32-true" in line) == is_slow


def test_a_torch_without_onednn_says_nothing_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert find_slowness(trainer(accelerator="cpu", precision="bf16-mixed")) is None


@pytest.mark.parametrize(("tf32", "expected"), [(True, "high"), (False, "highest")])
def test_tf32_is_allowed_or_not_on_a_gpu_and_put_back(tf32: bool, expected: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with float32_products(torch.device("cuda", 0), tf32=tf32):
        assert torch.get_float32_matmul_precision() == expected
        assert torch.backends.cudnn.allow_tf32 == tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    with float32_products(torch.device("cpu"), tf32=tf32):
        assert torch.get_float32_matmul_precision() == before[0]


def test_first_lines_and_config_say_what_the_run_computes_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    argv = ["fit", "--config", str(tmp_path / "small.yaml"), "--log_dir", str(tmp_path / "logs")]
    assert main([*argv, "--trainer.accelerator=cpu"]) == 0
    with memory_kept(torch.device("cpu")) as kept:
        memory = ", freed memory kept" if kept else ""
    said = f"1 × cpu, precision 32-true, channels_last{memory}, seed 42"
    assert said in capsys.readouterr().out
    run = tmp_path / "logs/small/version_0"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "32-true"
    more = ["--trainer.precision=bf16-mixed", "--model.layout=contiguous", "--keep_memory=false"]
    assert main([*argv, "--trainer.accelerator=cpu", *more]) == 0
    assert "1 × cpu, precision bf16-mixed, contiguous, seed 42" in capsys.readouterr().out
    # on going on, precision is that of the run's config
    resume = ["fit", "--run", "small", "--log_dir", str(tmp_path / "logs"), "--ckpt_path", "last"]
    assert main([*resume, "--trainer.max_steps=3"]) == 0
    assert "precision bf16-mixed, contiguous" in capsys.readouterr().out


def test_a_run_begins_with_a_word_on_bfloat16_that_the_processor_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    (tmp_path / "small.yaml").write_text(SMALL)
    argv = ["fit", "--config", str(tmp_path / "small.yaml"), "--log_dir", str(tmp_path / "logs")]
    argv.append("--trainer.accelerator=cpu")
    assert main([*argv, "--trainer.precision=bf16-mixed"]) == 0
    assert capsys.readouterr().out.startswith("precision bf16-mixed is many times slower")
    assert main([*argv, "--cpu_bf16=true"]) == 0
    output = capsys.readouterr().out
    assert "slower" not in output
    assert "precision 32-true" in output


def test_a_backend_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    argv = ["fit", "--config", str(tmp_path / "small.yaml"), "--log_dir", str(tmp_path / "logs")]
    assert main([*argv, "--compile", "gcc"]) == 2
    assert "torch cannot compile with 'gcc'" in capsys.readouterr().err
