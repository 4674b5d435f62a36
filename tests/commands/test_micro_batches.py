"""Batches in parts on a CPU: the same step in less memory, of batches that a config keeps whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from compare import assert_same_checkpoint
from jsonargparse import Namespace
from small import UNDRAWN

from cnn_lightning.cli import main
from cnn_lightning.commands.arguments import Start
from cnn_lightning.commands.micro_batches import settle_batches, settle_micro_batches
from cnn_lightning.errors import UserError
from cnn_lightning.runs import RunFolder

LAST = Path("checkpoints/last.ckpt")
CONFIG = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 60, num_test: 20, batch_size: 16, eval_batch_size: 20}
model: {class_path: LeNet, init_args: {activation: relu}}
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.05, momentum: 0.9}}
trainer: {max_epochs: 2, accelerator: cpu}
cpu_micro_batch: 4
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def fit(config: Path, run: str, *more: str) -> Path:
    folder = config.parent / "logs" / run / "version_0"
    arguments = [f"--config={config}", f"--log_dir={config.parent / 'logs'}", f"--run={run}"]
    assert main(["fit", *arguments, *more]) == 0
    return folder


@pytest.mark.parametrize(
    ("batch_size", "accumulated", "becomes", "in_parts"),
    [
        (128, 1, 32, 4),
        (128, 2, 32, 8),
        (100, 1, 25, 4),
        (32, 1, 32, 1),
        (127, 3, 127, 3),  # a prime
    ],
)
def test_a_step_sees_as_many_images_as_before(
    batch_size: int, accumulated: int, becomes: int, in_parts: int
) -> None:
    trainer = Namespace(accumulate_grad_batches=accumulated)
    sizes = Namespace(batch_size=batch_size, eval_batch_size=250)
    data = Namespace(class_path="CIFAR10DataModule", init_args=sizes)
    settle_micro_batches(trainer, data, 32)
    assert (sizes.batch_size, trainer.accumulate_grad_batches) == (becomes, in_parts)
    assert sizes.eval_batch_size == 32
    settle_micro_batches(trainer, data, 32)
    assert (sizes.batch_size, trainer.accumulate_grad_batches) == (becomes, in_parts)


def test_a_run_takes_its_batches_in_parts_and_says_so(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = fit(config, "parts")
    assert "steps of 4 × 4 images" in capsys.readouterr().out
    settings = yaml.safe_load((parts / "config.yaml").read_text())
    assert settings["data"]["init_args"]["batch_size"] == 16
    assert settings["data"]["init_args"]["eval_batch_size"] == 20
    assert settings["trainer"]["accumulate_grad_batches"] == 1
    by_hand = fit(
        config,
        "by_hand",
        "--cpu_micro_batch=null",
        "--data.batch_size=4",
        "--data.eval_batch_size=4",
        "--trainer.accumulate_grad_batches=4",
    )
    ends = [torch.load(folder / LAST, weights_only=True) for folder in (parts, by_hand)]
    assert ends[0]["global_step"] == ends[1]["global_step"]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name


@pytest.mark.parametrize(("num_images", "batch_size"), [(60, 16), (60, 60), (31, 60)])
def test_steps_of_fewer_or_smaller_parts_are_those_of_whole_batches(
    config: Path, num_images: int, batch_size: int
) -> None:
    ends = []
    for run, most in (("parts", "5"), ("whole", "null")):
        sizes = [f"--data.num_images={num_images}", f"--data.batch_size={batch_size}"]
        folder = fit(config, run, f"--cpu_micro_batch={most}", *sizes)
        content = torch.load(folder / LAST, weights_only=True)
        ends.append((content["global_step"], content["state_dict"]))
    assert ends[0][0] == ends[1][0]
    for name, value in ends[1][1].items():
        torch.testing.assert_close(ends[0][1][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("precision", "parts"), [("32-true", "8 × 2"), ("bf16-mixed", "4 × 4")])
def test_each_precision_may_have_a_number_of_its_own(
    precision: str, parts: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG.replace("micro_batch: 4", "micro_batch: {bfloat16: 4, float32: 2}"))
    run = fit(config, "each", f"--trainer.precision={precision}", "--trainer.fast_dev_run=true")
    assert f"steps of {parts} images" in capsys.readouterr().out
    assert not run.exists()
    fit(config, "whole", "--cpu_micro_batch=null", f"--trainer.precision={precision}")
    assert "steps of" not in capsys.readouterr().out
    whole = yaml.safe_load((config.parent / "logs/whole/version_0/config.yaml").read_text())
    assert whole["cpu_micro_batch"] is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{bfloat16: 4}", "expected int, or Missing required keys: {'float32'}"),
        ("{bfloat16: 4, float32: 2, float16: 2}", "Unexpected keys: {'float16'}"),
        ("{bfloat16: 4, float32: 1}", "give at least 2"),
        ("many", "expected int, or expected dict"),
    ],
)
def test_a_number_for_each_precision_is_both_or_refused(
    given: str, told: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", f"--config={config}", f"--cpu_micro_batch={given}"]) == 2
    assert told in capsys.readouterr().err


def test_the_same_command_goes_on_in_the_same_parts(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = ["--trainer.accumulate_grad_batches=2", *UNDRAWN]
    run = fit(config, "parts", *twice, "--trainer.max_epochs=1")
    began = yaml.safe_load((run / "config.yaml").read_text())
    assert began["trainer"]["accumulate_grad_batches"] == 2
    resumed = ["--ckpt_path=last", "--trainer.max_epochs=2"]
    fit(config, "parts", *twice, *resumed)
    asked = ["--run=parts", f"--log_dir={config.parent / 'logs'}", *resumed]
    assert main(["fit", *asked]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed")]
    assert told == ["changed: trainer.max_epochs is 2, was 1"]
    for number in (1, 2):
        settings = yaml.safe_load((run / f"config-resume-{number}.yaml").read_text())
        settings["trainer"]["max_epochs"] = 1
        assert settings == began


BEGUN = {"batch_size": 16, "eval_batch_size": 250, "accumulate_grad_batches": 2}


@pytest.mark.parametrize(
    ("changes", "becomes"),
    [
        ({}, (4, 4, 8)),
        ({"accumulate_grad_batches": 1}, (4, 4, 4)),
        ({"eval_batch_size": 2}, (4, 2, 8)),
        ({"batch_size": 32}, (4, 4, 16)),
        ({"batch_size": 12, "accumulate_grad_batches": 1}, (4, 4, 3)),
    ],
)
def test_batches_that_are_named_on_a_resume_are_whole_ones(
    changes: dict[str, int], becomes: tuple[int, ...]
) -> None:
    assert settled(4, changes, "cpu") == becomes


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_parts_are_those_that_the_run_began_with(accelerator: str) -> None:
    assert settled(2, {}, accelerator) == (2, 4, 16)


@pytest.mark.parametrize(
    ("changes", "on_gpu", "on_cpu"),
    [
        # an epoch that is not over counts whole batches
        ({}, (16, 250, 2), (16, 4, 2)),
        ({"batch_size": 64}, (64, 250, 2), (4, 4, 32)),
    ],
)
def test_a_run_that_began_whole_on_a_gpu_stays_whole_there(
    changes: dict[str, int], on_gpu: tuple[int, ...], on_cpu: tuple[int, ...]
) -> None:
    assert settled(16, changes, "gpu") == on_gpu
    assert settled(16, changes, "cpu") == on_cpu


def settled(part: int, changes: dict[str, int], accelerator: str) -> tuple[int, ...]:
    """Both batch sizes and the accumulation of a resume with `cpu_micro_batch` 4.

    Args:
        part: Images that went through the network at once before.
        changes: Of what the run began with.
        accelerator: Where it goes on.
    """

    def settings(numbers: dict[str, int]) -> dict[str, Any]:
        sizes = {key: numbers[key] for key in ("batch_size", "eval_batch_size")}
        accumulated = numbers["accumulate_grad_batches"]
        return {
            "data": {"class_path": "ShapesDataModule", "init_args": sizes},
            "trainer": {"accumulate_grad_batches": accumulated, "accelerator": accelerator},
            "cpu_micro_batch": 4,
        }

    asked = settings({**BEGUN, **changes})
    config = Namespace(
        data=Namespace(class_path="", init_args=Namespace(asked["data"]["init_args"])),
        trainer=Namespace(asked["trainer"]),
        cpu_micro_batch=asked["cpu_micro_batch"],
    )
    checkpoint = {"datamodule_hyper_parameters": {"batch_size": part}}
    known = settings(BEGUN)
    start = Start("fit", [], RunFolder(Path()), checkpoint=checkpoint, known=known)
    settle_batches(config, start)
    sizes = config.data.init_args
    return sizes.batch_size, sizes.eval_batch_size, config.trainer.accumulate_grad_batches


def test_a_run_replays_with_another_batch_size(config: Path) -> None:
    other = ["--data.batch_size=8", "--trainer.max_epochs=1", *UNDRAWN]
    run = fit(config, "first", "--trainer.max_epochs=1", *UNDRAWN)
    ends = [fit(start, "other", *other) / LAST for start in (config, run / "config.yaml")]
    assert_same_checkpoint(*ends)


@pytest.mark.parametrize("asked", ["4", "{bfloat16: 8, float32: 2}"])
def test_a_run_that_began_whole_takes_no_parts(
    asked: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(config, "whole", "--cpu_micro_batch=null", "--trainer.max_epochs=1", *UNDRAWN)
    last = f"--ckpt_path={whole / LAST}"
    assert main(["fit", last, "--trainer.max_epochs=3", f"--cpu_micro_batch={asked}"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        f"error: cpu_micro_batch is {asked}, and the run began with null, which it keeps"
    )
    assert not (whole / "config-resume-1.yaml").exists()


@pytest.mark.parametrize("arguments", [{}, {"init_args": Namespace(root="data")}])
def test_a_data_module_with_batches_of_its_own_is_refused(arguments: dict[str, Namespace]) -> None:
    data = Namespace(class_path="mine.Photos", **arguments)
    with pytest.raises(UserError, match=r"mine\.Photos takes no batch_size"):
        settle_micro_batches(Namespace(accumulate_grad_batches=1), data, 32)


def test_one_image_at_a_time_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", f"--config={config}", "--cpu_micro_batch=1"]) == 2
    assert "cpu_micro_batch is 1" in capsys.readouterr().err
