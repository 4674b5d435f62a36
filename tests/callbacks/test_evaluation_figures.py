import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small import UNDRAWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_lightning.callbacks import evaluation_figures
from cnn_lightning.cli import main

NAMES = ("confusion_matrix", "class_accuracy", "worst_mistakes", "reliability")
NUM_TEST, NUM_TRAIN = 60, 100


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("logs")
    data = ["--data", "ShapesDataModule", "--data.num_images", str(NUM_TRAIN)]
    data += ["--data.num_test", str(NUM_TEST), "--data.batch_size", "32"]
    argv = ["fit", *data, "--model", "LeNet", "--run", "small", "--log_dir", str(logs)]
    assert main([*argv, "--trainer.max_epochs", "1", *UNDRAWN]) == 0
    return logs / "small/version_0"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "logs/small/version_0")


def evaluate(run: Path, *more: str, command: str = "test") -> None:
    assert main([command, "--ckpt_path", str(run / "checkpoints/last.ckpt"), *more]) == 0


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """What the figures were drawn from, by the name of the function."""
    kept: dict[str, tuple[Any, ...]] = {}

    def keep(name: str) -> None:
        draw = getattr(evaluation_figures, name)

        def keeping(*args: Any) -> Any:
            kept[name] = args
            return draw(*args)

        monkeypatch.setattr(evaluation_figures, name, keeping)

    for name in ("draw_confusion_matrix", "draw_class_accuracy", "draw_predictions"):
        keep(name)
    keep("draw_reliability")
    return kept


def figures_in(run: Path) -> set[str]:
    return {path.stem for path in (run / "figures").glob("test_*")}


def images_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_test_leaves_every_picture_as_a_file_and_in_tensorboard(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not figures_in(run)
    evaluate(run)
    assert figures_in(run) == {f"test_{name}" for name in NAMES}
    said = capsys.readouterr().out.splitlines()
    events = images_of(run)
    step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    for name in NAMES:
        path = run / f"figures/test_{name}.png"
        assert str(path) in said
        (event,) = events.Images(f"test/{name}")
        assert event.step == step == events.Scalars("test/accuracy")[0].step
        shown = Image.open(io.BytesIO(event.encoded_image_string))
        assert shown.tobytes() == Image.open(path).tobytes()


def test_the_figures_show_what_predict_writes_and_test_logs(
    run: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    evaluate(run)
    evaluate(run, command="predict")
    counts, names = drawn["draw_confusion_matrix"]
    expected = torch.zeros_like(counts)
    wrong = []
    for row in rows_of(run / "predictions.csv"):
        expected[names.index(row["true"]), names.index(row["predicted"])] += 1
        if row["true"] != row["predicted"]:
            wrong.append((-float(row["probability"]), row["predicted"], row["true"]))
    assert torch.equal(counts, expected)
    assert counts.sum() == NUM_TEST
    correct, images, _ = drawn["draw_class_accuracy"]
    assert correct.tolist() == expected.diagonal().tolist()
    assert images.tolist() == expected.sum(1).tolist()
    _, predicted, probabilities, true = drawn["draw_predictions"]
    assert probabilities == sorted(probabilities, reverse=True)
    worst = sorted(wrong)[:36]
    assert probabilities == pytest.approx([-row[0] for row in worst], abs=1e-6)
    assert not any(p == t for p, t in zip(predicted, true, strict=True))
    logged = rows_of(run / "metrics.csv")[-1]
    assert drawn["draw_reliability"][3] == pytest.approx(float(logged["test/calibration_error"]))
    assert correct.sum() / NUM_TEST == pytest.approx(float(logged["test/accuracy"]))


def test_a_part_of_the_batches_is_drawn_as_a_part(
    run: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    evaluate(run, "--data.eval_batch_size", "4", "--trainer.limit_test_batches", "1")
    counts, _ = drawn["draw_confusion_matrix"]
    assert counts.sum() == 4
    assert (counts.sum(1) == 0).any()  # classes without images
    assert figures_in(run) >= {"test_confusion_matrix", "test_class_accuracy", "test_reliability"}


def test_without_mistakes_there_is_a_line_and_no_picture_of_an_earlier_test(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "figures/test_worst_mistakes.png").touch()
    none = torch.empty(0, dtype=torch.int64)
    monkeypatch.setattr(evaluation_figures, "worst_mistakes", lambda *_: none)
    evaluate(run)
    assert "test_worst_mistakes" not in figures_in(run)
    assert "no picture of mistakes: all 60 images" in capsys.readouterr().out


def test_other_commands_and_trial_runs_draw_nothing(run: Path) -> None:
    evaluate(run, command="validate")
    evaluate(run, command="predict")
    evaluate(run, "--trainer.fast_dev_run", "true")
    assert not figures_in(run)
    assert not any(tag.startswith("test/") for tag in images_of(run).Tags()["images"])
