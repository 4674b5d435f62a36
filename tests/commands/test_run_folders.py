"""Whose run folder it is: of runs that start or go on at the same time, and of another name."""

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
from small import UNDRAWN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_lightning.cli import main
from cnn_lightning.commands.training import TrainingCLI
from cnn_lightning.settings import read_settings

SMALL = [
    *("--data", "ShapesDataModule", "--data.num_images", "60", "--data.num_test", "20"),
    *("--model", "LeNet", "--data.batch_size", "16", "--trainer.enable_model_summary", "false"),
    *UNDRAWN,
]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


def fit(logs: Path, *more: object, code: int = 0) -> None:
    assert main(["fit", "--log_dir", str(logs), "--run", "a", *map(str, more)]) == code


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def files(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def test_runs_that_start_at_the_same_time_have_each_their_own_folder(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = TrainingCLI.instantiate_trainer

    def slow(cli: TrainingCLI, **kwargs: object) -> object:
        trainer = build(cli, **kwargs)
        monkeypatch.setattr(TrainingCLI, "instantiate_trainer", build)
        fit(logs, *SMALL, "--trainer.max_epochs", 1)  # the other starts and ends meanwhile
        return trainer

    monkeypatch.setattr(TrainingCLI, "instantiate_trainer", slow)
    fit(logs, *SMALL, "--trainer.max_epochs", 2)
    first, second = logs / "a/version_0", logs / "a/version_1"
    assert [row["epoch"] for row in rows(first)][-1] == "0"
    assert [row["epoch"] for row in rows(second)][-1] == "1"
    names = [[name for name in files(run) if "events" not in name] for run in (first, second)]
    assert names[0] == names[1]
    events = [list(run.glob("events*")) for run in (first, second)]
    assert [len(found) for found in events] == [1, 1]
    assert f"done: {second}" in capsys.readouterr().out


def test_the_last_line_is_right_beside_checkpoints_of_the_users_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "my logs"
    own = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss")
    fit(logs, *SMALL, "--trainer.max_epochs", 1, *own)
    best = max(float(row["val/accuracy"] or 0) for row in rows(logs / "a/version_0"))
    told = capsys.readouterr().out.splitlines()[-1]
    assert f"best val/accuracy {best:.4f} " in told
    look = shlex.split(told.partition("look: ")[2])
    assert look[:3] == ["tensorboard", "--logdir", str(logs / "a")]


def test_a_run_that_is_refused_leaves_no_folder(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def setup(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("It cannot log as `nowhere` is not installed.")

    monkeypatch.setattr(L.pytorch.callbacks.DeviceStatsMonitor, "setup", setup)
    fit(logs, *SMALL, "--trainer.callbacks+=DeviceStatsMonitor", code=2)
    assert "error: the package nowhere is not installed\n" in capsys.readouterr().err
    assert not (logs / "a").exists()


def test_a_progress_bar_of_the_users_own_is_the_only_one(logs: Path) -> None:
    fit(logs, *SMALL, "--trainer.fast_dev_run=true", "--trainer.callbacks+=TQDMProgressBar")


def test_a_trial_makes_no_folder(logs: Path) -> None:
    fit(logs, *SMALL, "--trainer.fast_dev_run", "true")
    assert not logs.exists()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (["--optimizer", "AdamW"], "AdamW"),
        (["--optimizer.init_args.lr", "1e30"], "loss is"),
    ],
    ids=["refused", "failed"],
)
def test_a_resume_that_comes_to_nothing_leaves_the_config_before(
    bad: list[str], why: str, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(logs, *SMALL, "--trainer.max_epochs", 1)
    resume = ("--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert main(["fit", "--log_dir", str(logs), "--run", "a", *map(str, resume), *bad]) in (1, 2)
    told = capsys.readouterr()
    assert why in told.err
    assert "changed: optimizer" in told.out
    run = logs / "a/version_0"
    assert "config-resume-1.yaml" not in files(run)
    fit(logs, *resume)
    assert "changed: optimizer" not in capsys.readouterr().out
    configs = [read_settings(run / name) for name in ("config.yaml", "config-resume-1.yaml")]
    assert configs[0].pop("trainer")["max_epochs"] == 1
    assert configs[1].pop("trainer")["max_epochs"] == 2
    assert configs[0] == configs[1]


def test_a_test_of_the_checkpoint_that_a_run_goes_on_from_is_kept(logs: Path) -> None:
    fit(logs, *SMALL, "--trainer.max_epochs", 1)
    run = logs / "a/version_0"
    assert main(["test", "--log_dir", str(logs), "--run", "a", "--ckpt_path", "last"]) == 0
    tested = rows(run)[-1]
    fit(logs, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    (kept,) = [row for row in rows(run) if row["test/accuracy"]]
    assert kept["step"] == tested["step"]
    of_test = {name: value for name, value in tested.items() if name.startswith("test/")}
    assert of_test.items() <= kept.items()
    assert len(of_test) > 10
    events = EventAccumulator(str(run))
    events.Reload()
    for name, value in of_test.items():
        (event,) = events.Scalars(name)
        assert event.step == int(tested["step"])
        assert event.value == pytest.approx(float(value))


# trains on in a process of its own until it is killed; `held` says when it has begun
GOING_ON = """
import sys
from pathlib import Path
from cnn_lightning.runs import RunFolder, going_on
with going_on(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_going_on_is_not_resumed_beside_it(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(logs, *SMALL, "--trainer.max_epochs", 1)
    run = logs / "a/version_0"
    part = run / "checkpoints/.last.ckpt.0123abcd.part"
    part.touch()
    before = files(run)
    resume = ("--ckpt_path", "last", "--trainer.max_epochs", 2)
    command = [sys.executable, "-c", GOING_ON, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        fit(logs, *resume, code=2)
        told = capsys.readouterr().err.splitlines()
        assert told[0] == f"error: run {run} is going on in another process"
        assert len(told) == 2
        assert files(run) == before
        other.kill()
    fit(logs, *resume)  # it went with the process
    assert not part.exists()
    fit(logs, "--ckpt_path", "last", "--trainer.max_epochs", 3)  # and this one's with its end


def test_a_run_goes_on_under_another_name_or_in_another_place_and_the_first_stays(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(logs, *SMALL, "--trainer.max_epochs", 1)
    first = logs / "a/version_0"
    before = {name: (first / name).read_bytes() for name in files(first)}
    resume = ["fit", "--ckpt_path", str(first / "checkpoints/last.ckpt"), "--trainer.max_epochs=2"]
    places = {"b": logs, "a": tmp_path / "other", "c": tmp_path / "other"}
    for name, log_dir in places.items():
        flags = ["--run", name] * (name != "a") + ["--log_dir", str(log_dir)] * (log_dir != logs)
        assert main([*resume, *flags]) == 0
        run = log_dir / name / "version_0"
        assert f"run {run}, resumed at step 4" in capsys.readouterr().out
        assert [row["epoch"] for row in rows(run)] == ["1"] * len(rows(run))
        assert {"config.yaml", "checkpoints/best.ckpt"} <= set(files(run))
        assert read_settings(run / "config.yaml")["run"] == name
    assert {name: (first / name).read_bytes() for name in files(first)} == before
    # the same name and place, however they are written, are those of the run itself
    fit(logs / "../logs", *resume[1:])
    assert "config-resume-1.yaml" in files(first)
    assert not (logs / "a/version_1").exists()
    predict = ["predict", "--ckpt_path", str(logs / "a"), "--log_dir", str(tmp_path / "out")]
    assert main(predict) == 0
    assert (tmp_path / "out/a/version_0/predictions.csv").is_file()
    assert "predictions.csv" not in files(first)


def test_a_run_whose_name_could_be_a_number_goes_on_and_replays(logs: Path) -> None:
    short = ("--trainer.limit_train_batches", "1", "--trainer.max_epochs")
    assert main(["fit", "--log_dir", str(logs), "--run", "1e3", *SMALL, *short, "1"]) == 0
    run = logs / "1e3/version_0"
    for epochs in ("2", "3"):
        path = str(run / "checkpoints/last.ckpt")
        assert main(["fit", "--ckpt_path", path, "--trainer.max_epochs", epochs]) == 0
    assert "config-resume-2.yaml" in files(run)
    config = str(run / "config-resume-2.yaml")
    assert main(["fit", "--config", config, "--trainer.fast_dev_run", "true"]) == 0
