"""A run is read back as it went, whatever was done with it afterwards."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from make_checkpoint import save_checkpoint
from make_run import Table, make_run, write_metrics
from torch import nn

from cnn_lightning.callbacks.checkpoints import LastCheckpoint
from cnn_lightning.classifiers import Airbench
from cnn_lightning.cli import main
from cnn_lightning.errors import UserError
from cnn_lightning.history import History, read_history
from cnn_lightning.loggers import MetricsTable
from cnn_lightning.networks import ResidualNetwork
from cnn_lightning.runs import RunFolder

EPOCHS = [
    {"step": 3, "epoch": 0, "train/loss": 3.0, "images_per_second": 10},
    {"step": 4, "epoch": 0, "train/loss": 1.0, "val/accuracy": 0.4, "images_per_second": 30},
    {"step": 9, "epoch": 1, "train/loss": 0.5, "val/accuracy": 0.8, "images_per_second": 31},
    {"step": 14, "epoch": 2, "train/loss": 0.2, "val/accuracy": 0.7, "images_per_second": 32},
]


def read(tmp_path: Path, rows: Table) -> History:
    return read_history(write_metrics(RunFolder(tmp_path / "run/version_0"), rows))


def test_curves_best_and_final(tmp_path: Path) -> None:
    history = read(tmp_path, EPOCHS)
    assert history.val_accuracy == [(1, 0.4), (2, 0.8), (3, 0.7)]
    assert (history.best, history.final) == ((2, 0.8), (3, 0.7))
    assert history.images_per_second == 30.5
    # four steps of mean 3 and one of 1
    assert history.train_loss == [(1, pytest.approx((4 * 3 + 1) / 5)), (2, 0.5), (3, 0.2)]
    unknown = (history.test_accuracy, history.settings, history.num_parameters)
    assert unknown == (None, None, None)


def test_the_first_of_equal_validations_is_the_best(tmp_path: Path) -> None:
    rows = [{**row, "val/accuracy": 0.5} for row in EPOCHS[1:]]
    assert read(tmp_path, rows).best == (1, 0.5)


@pytest.mark.parametrize(
    ("accuracy", "epoch"), [(0.1, 1), (0.4, 1), (0.41, 2), (0.75, 2), (0.81, None)]
)
def test_epochs_to_an_accuracy(accuracy: float, epoch: float | None, tmp_path: Path) -> None:
    assert read(tmp_path, EPOCHS).epochs_to(accuracy) == epoch


def test_nine_of_ten_right_is_0_9_in_single_precision_too(tmp_path: Path) -> None:
    logged = float(torch.tensor(0.9))
    assert logged < 0.9
    history = read(tmp_path, [{"step": 0, "epoch": 0, "val/accuracy": logged}])
    assert history.epochs_to(0.9) == 1
    assert history.epochs_to(0.9001) is None


def test_four_validations_an_epoch_are_quarters_of_it(tmp_path: Path) -> None:
    rows = [{"step": n, "epoch": n // 8, "val/accuracy": n / 100} for n in range(1, 14, 2)]
    history = read(tmp_path, rows)
    assert [epoch for epoch, _ in history.val_accuracy] == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert history.epochs_to(0.05) == 0.75


def test_a_validation_every_second_epoch_counts_as_that_epoch(tmp_path: Path) -> None:
    rows = [{"step": n, "epoch": n, "val/accuracy": n / 10} for n in (1, 3, 5)]
    assert [epoch for epoch, _ in read(tmp_path, rows).val_accuracy] == [2, 4, 6]


@pytest.mark.parametrize("step", [5, 10, 15])
@pytest.mark.parametrize("epoch", [0, ""])
def test_a_later_validation_of_a_checkpoint_is_no_epoch(
    step: int, epoch: Any, tmp_path: Path
) -> None:
    later = {"step": step, "epoch": epoch, "val/accuracy": 0.99}
    rows = sorted([*EPOCHS, later], key=lambda row: row["step"])
    assert read(tmp_path, rows).val_accuracy == [(1, 0.4), (2, 0.8), (3, 0.7)]


@pytest.mark.parametrize("steps_done", range(1, 6))
def test_an_evaluation_leaves_the_rows_of_the_training(steps_done: int, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run/version_0")
    training = MetricsTable(folder)
    for step in range(5):  # an epoch each but the last, which has two
        training.log_metrics({"train/loss": 2.0**-step, "epoch": step - step // 4}, step)
        training.log_metrics({"images_per_second": 10.0}, step)
        if step != 3:
            training.log_metrics({"val/accuracy": step / 10, "epoch": step - step // 4}, step)
    training.finalize("success")
    before, lines = read_history(folder), folder.metrics.read_text().splitlines()
    for name, accuracy in (("val", 0.8), ("val", 0.9), ("test", 0.7)):  # two commands more
        later = MetricsTable(folder, at_step=steps_done)
        later.log_metrics({f"{name}/accuracy": accuracy, "epoch": 0}, 0)
        later.finalize("success")
    after = read_history(folder)
    assert (after.val_accuracy, after.train_loss) == (before.val_accuracy, before.train_loss)
    assert after.test_accuracy == 0.7
    with folder.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    (own,) = [row for row in rows if not row["epoch"]]
    assert (own["step"], own["val/accuracy"]) == (str(steps_done), "0.9")
    assert own["train/loss"] == ""
    names = lines[0].split(",")
    trained = [",".join(row[name] for name in names) for row in rows if row is not own]
    assert trained == lines[1:]
    # and a resume does not take it for a row of the training
    going_on = MetricsTable(folder, resumed_at=steps_done + 1)
    going_on.log_metrics({"train/loss": 1.0, "val/accuracy": 0.3, "epoch": 9}, steps_done + 1)
    going_on.finalize("success")
    assert read_history(folder).final == (10, 0.3)
    assert read_history(folder).test_accuracy == 0.7


def test_the_test_of_the_best_checkpoint_comes_first(tmp_path: Path) -> None:
    best = {"step": 10, "epoch": 0, "test/accuracy": 0.77, "test/accuracy/cat": 1}
    last = {"step": 15, "epoch": 0, "test/accuracy": 0.66}
    assert read(tmp_path, [*EPOCHS[:3], best, EPOCHS[3], last]).test_accuracy == 0.77
    assert read(tmp_path, [*EPOCHS, last]).test_accuracy == 0.66


def test_layers_have_the_values_of_the_last_epoch(tmp_path: Path) -> None:
    rows = [
        {
            **row,
            "activations/dead/backbone.act1": 0.1 * row["epoch"],
            "activations/saturated/act2": 0.2 * row["epoch"],
            "activations/mean/act2": 5,
            "gradient_norm/head": 0.3 * row["epoch"],
        }
        for row in EPOCHS[1:]
    ]
    history = read(tmp_path, [*rows, {"step": 15, "epoch": 0, "test/accuracy": 0.6}])
    assert history.dead == {"backbone.act1": pytest.approx(0.2)}
    assert history.saturated == {"act2": pytest.approx(0.4)}
    assert history.gradient_norm == {"head": pytest.approx(0.6)}


def test_layers_keep_the_order_in_which_they_were_logged(tmp_path: Path) -> None:
    folder, layers = RunFolder(tmp_path / "run/version_0"), ["stem", "mixed", "act10", "act9"]
    for step in range(2):  # the second goes on where the first ended
        table = MetricsTable(folder, resumed_at=step)
        table.log_metrics({f"gradient_norm/{layer}": 1.0 + step for layer in layers}, step)
        table.log_metrics({"val/accuracy": 0.5, "train/loss": 1.0, "epoch": step}, step)
        table.finalize("success")
    assert list(read_history(folder).gradient_norm) == layers
    columns = folder.metrics.read_text().splitlines()[0].split(",")
    assert columns[:2] + columns[-2:] == ["step", "epoch", "train/loss", "val/accuracy"]


@pytest.mark.parametrize("network", [nn.Linear(3, 4), nn.BatchNorm2d(5)], ids=["linear", "norm"])
def test_parameters_are_counted_without_buffers_and_metrics(
    network: nn.Module, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run/version_0")
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save(
        {"state_dict": {**state, "val_loss.mean_value": torch.zeros(7)}},
        folder.checkpoints / "best.ckpt",
    )
    expected = sum(parameter.numel() for parameter in network.parameters())
    assert read_history(folder).num_parameters == expected


def test_parameters_of_a_residual_network(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run/version_0")
    network = ResidualNetwork(10)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    (folder.checkpoints / "best.ckpt").unlink()
    torch.save({"state_dict": state}, folder.checkpoints / "last.ckpt")
    assert read_history(folder).num_parameters == 11_173_962  # shared/design.md, C5


def test_buffers_are_no_parameters(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run/version_0")
    classifier, path = Airbench(10, widths=(8, 16)), folder.checkpoints / "best.ckpt"
    save_checkpoint(path, classifier, callbacks=[LastCheckpoint()])
    network = classifier.network
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert read_history(folder).num_parameters == trained
    # older checkpoints do not say it, and have the whitening among the parameters
    save_checkpoint(path, classifier)
    buffers = dict(network.named_buffers())
    assert read_history(folder).num_parameters == trained + sum(
        buffers[f"backbone.whiten.{name}"].numel() for name in ("weight", "is_fitted")
    )


def test_settings_are_flat_and_those_of_the_last_resume(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run/version_0", settings={"trainer": {"max_epochs": 2}})
    assert read_history(folder).settings == {"trainer.max_epochs": 2}
    (folder.path / "config-resume-1.yaml").write_text("trainer: {max_epochs: 4, callbacks: {}}")
    assert read_history(folder).settings == {"trainer.max_epochs": 4, "trainer.callbacks": {}}


def test_a_run_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="version_7 has no metrics"):
        read_history(RunFolder(tmp_path / "run/version_7"))


@pytest.mark.parametrize("rows", [EPOCHS[:1], [{"step": 1, "epoch": 0, "test/accuracy": 0.5}]])
def test_a_run_that_was_never_validated_is_refused(rows: Table, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="version_0 was never validated"):
        read(tmp_path, rows)


@pytest.mark.parametrize("line", ["0,0", "x,0,0.5", "1,0,half", "1,0,0.5,0.7", "1", "\0"])
def test_a_damaged_table_is_named_with_its_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "run/version_0/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"step,epoch,val/accuracy\n0,0,0.25\n{line}\n")
    with pytest.raises(UserError, match=r"metrics\.csv, line 3 "):
        read_history(RunFolder(path.parent))


@pytest.mark.parametrize("content", ["a: [1,\nb: }", "- a\n- b"])
def test_a_damaged_config_is_named(content: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run/version_0")
    folder.config.write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_history(folder)


def test_a_real_run_that_was_evaluated_afterwards(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "data:\n  class_path: ShapesDataModule\n"
        "  init_args: {num_images: 100, num_test: 40, batch_size: 32}\n"
        "model: LeNet\ntrainer: {max_epochs: 2, log_every_n_steps: 1}\n"
    )
    assert main(["fit", "--config", str(recipe), "--log_dir", str(tmp_path / "logs")]) == 0
    folder = RunFolder(tmp_path / "logs/small/version_0")
    before = read_history(folder)
    assert [epoch for epoch, _ in before.val_accuracy] == [1, 2]
    assert [epoch for epoch, _ in before.train_loss] == [1, 2]
    assert before.images_per_second is not None
    assert before.num_parameters == 62_006  # LeNet-5's 61,706 and 2·6·5·5 for more colours
    best, last = (str(folder.checkpoints / f"{name}.ckpt") for name in ("best", "last"))
    for argv in (["test", best], ["validate", last], ["validate", best]):
        assert main([argv[0], "--ckpt_path", argv[1]]) == 0
    after = read_history(folder)
    assert after.val_accuracy == before.val_accuracy
    assert after.train_loss == before.train_loss
    assert after.test_accuracy is not None
