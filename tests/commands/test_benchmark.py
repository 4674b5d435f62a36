"""`benchmark` as a command: what it writes, what it says, what it refuses."""

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from killing import run_code
from make_data import make_weights

from cnn_lightning.cli import main
from cnn_lightning.commands import benchmark
from cnn_lightning.commands.benchmark import PARTS
from cnn_lightning.commands.benchmarking import start_up
from cnn_lightning.commands.benchmarking.report import Measurement

RECIPE = """
data:
  class_path: ShapesDataModule
  init_args: {num_images: 60, num_test: 20, batch_size: 16, augment: none}
model:
  class_path: TorchvisionClassifier
  init_args: {name: shufflenet_v2_x0_5, freeze: backbone, weights: DEFAULT, image_size: 32}
trainer: {max_epochs: 3}
feature_maps: {every_n_epochs: 0}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    make_weights("shufflenet_v2_x0_5")  # the smallest of torchvision
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def measure(tmp_path: Path, *argv: str | Path) -> dict[str, Any]:
    output = tmp_path / "out.json"
    assert main(["benchmark", *map(str, argv), "--output", str(output)]) == 0
    content: dict[str, Any] = json.loads(output.read_text())
    return content


@pytest.mark.parametrize("repeats", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_part_is_measured_and_kept(
    repeats: int,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if repeats == 1:  # the slow one starts Python anew
        monkeypatch.setattr(start_up, "subprocess", SimpleNamespace(run=run_code))
    content = measure(tmp_path, "--config", recipe, f"--repeats={repeats}", "--workers=0")
    found = content["measurements"]
    parts = set(PARTS) - {"busyness"}  # that of a GPU
    assert {one["part"] for one in found} == parts
    assert "of an NVIDIA GPU alone" in content["remarks"][0]
    for one in found:
        assert one["median"] == statistics.median(one["values"]) > 0, one
        if "reference" in one:
            assert one["reference"]["median"] == statistics.median(one["reference"]["values"])
            pairs = one["ratios"] or [one["median"] / one["reference"]["median"]]
            assert one["ratio"] == statistics.median(pairs)
    counts = {(one["part"], len(one["values"])) for one in found if one["unit"] != "MiB"}
    assert counts == {(part, repeats) for part in parts}
    (layout,) = (one for one in found if one["part"] == "layout")
    assert "TorchvisionNetwork on 16×3×32×32, channels_last" in layout["what"]
    assert layout["reference"]["what"] == "contiguous"
    (size,) = (one for one in found if one["what"] == "size of a checkpoint")
    assert size["median"] * 2**20 > 0.35e6 * 4  # as many parameters, of four bytes
    assert content["config"]["model"]["class_path"] == "cnn_lightning.TorchvisionClassifier"
    assert content["machine"]["versions"]["torch"]
    assert content["machine"]["threads"] == 1
    assert "LastCheckpoint" in content["training"]["callbacks"]
    assert content["command"][:2] == ["cnn-lightning", "benchmark"]
    said = capsys.readouterr().out
    assert "a bare loop" in said
    assert said.splitlines()[-1] == str(tmp_path / "out.json")
    assert not (tmp_path / "logs").exists()
    assert not Path("logs/small").exists()


def test_parts_can_be_chosen_and_options_of_fit_hold(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--config", recipe, "--parts=data,features", "--repeats=3", "--workers=0"]
    argv += ["--model.freeze=null", "--data.augment=crop_flip", "--steps=1"]
    content = measure(tmp_path, *argv)
    (only,) = content["measurements"]
    assert only["part"] == "data"
    assert "augment: crop_flip" in only["what"]
    assert len(only["values"]) == 3
    assert only["median"] == statistics.median(only["values"])
    assert only["ratio"] == statistics.median(only["ratios"])
    assert content["remarks"] == [
        "no frozen backbone, so no features that later epochs could reuse"
    ]
    assert content["remarks"][0] in capsys.readouterr().out


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("part", ["data", "layout"])
def test_freed_memory_is_kept_as_fit_keeps_it(
    part: str, keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[bool] = []

    @contextmanager
    def noting(device: torch.device, *, keep: bool) -> Iterator[None]:
        settings.append(keep)
        yield
        settings.clear()

    def measured(*args: object, **kwargs: object) -> Measurement:
        assert settings == [keep]
        return Measurement(part, "nothing", "s", [1.0])

    name = {"data": "measure_data_path", "layout": "measure_layouts"}[part]
    monkeypatch.setattr(benchmark, "memory_kept", noting)
    monkeypatch.setattr(benchmark, name, measured)
    data = ["--data", "ShapesDataModule", "--data.num_images=40", "--data.num_test=10"]
    argv = [*data, "--model=LeNet", "--parts", part, f"--keep_memory={str(keep).lower()}"]
    (only,) = measure(tmp_path, *argv)["measurements"]
    assert only["what"] == "nothing"


def test_ratio_is_that_of_neighbours_in_time() -> None:
    found = Measurement("step", "x", "s", [1.0, 2.0, 9.0], "y", [2.0, 4.0, 3.0])
    assert found.ratios == [0.5, 0.5, 3.0]
    assert found.ratio == 0.5
    assert Measurement("step", "x", "s", [1.0, 3.0], "y", [4.0]).ratio == 0.5  # of the medians
    assert Measurement("step", "x", "s", [1.0]).ratio is None


@pytest.mark.parametrize(
    ("repeats", "ranks"),
    # ranks of the published table for a median at 95 % confidence, counted from 1
    [(5, None), (6, (1, 6)), (10, (2, 9)), (20, (6, 15)), (50, (18, 33)), (100, (40, 61))],
)
def test_interval_is_the_one_of_ordered_values(repeats: int, ranks: tuple[int, int] | None) -> None:
    values = [float(rank) for rank in range(repeats, 0, -1)]
    found = Measurement("step", "x", "s", values, "y", [1.0] * repeats)
    assert found.interval == ranks
    assert Measurement("step", "x", "s", values).interval is None


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--parts=speed"], "no part 'speed'"),
        (["--repeats=0"], "--repeats is 0"),
        (["--steps=many"], "--steps"),
        (["--turn=-1"], "--turn is -1"),
        (["--output=x.txt"], "x.txt is no JSON file"),
        (["--ckpt_path=last"], "leave --ckpt_path out"),
        (["--trainer.max_epoch=3"], "max_epoch"),
        (["--data.augment=none", "--data.root=1", "--dat=2"], "--dat"),
    ],
)
def test_mistakes_are_told(
    argv: list[str], told: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "--config", str(recipe), *argv]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert told in message


def test_missing_weights_are_told_before_anything_is_measured(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "torch_home").rglob("*.pth"):
        path.unlink()
    assert main(["benchmark", "--config", str(recipe)]) == 2
    assert "could not be downloaded" in capsys.readouterr().err
