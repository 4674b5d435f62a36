"""`tune` finds what it says, and leaves nothing behind."""

import contextlib
import math
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.tuner import Tuner
from PIL import Image

from cnn_lightning.classifiers import Inception, LeNet
from cnn_lightning.classifiers.optimization import DEFAULT_OPTIMIZER
from cnn_lightning.cli import main
from cnn_lightning.commands.tune import (
    FIRST_BATCH,
    TuneCLI,
    _guess,
    find_batch_size,
    find_learning_rate,
)
from cnn_lightning.data import ShapesDataModule

SMALL = "--data=ShapesDataModule --data.num_images=200 --data.num_test=20 --data.batch_size=16"
ARGV = ["--model=LeNet", "--model.activation=relu", *SMALL.split()]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def build(scratch: Path, *argv: str) -> TuneCLI:
    return TuneCLI([*ARGV, *argv], scratch, steps=40)


def test_rate_is_said_and_drawn_and_nothing_else_is_left(
    scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = "--data=MNISTDataModule --data.sample=true --data.batch_size=32 --run=small"
    argv = ["--model=LeNet", *digits.split(), "--optimizer=torch.optim.AdamW"]
    with contextlib.chdir(tmp_path):
        code = main(["tune", *argv, "--steps=120", "--min_lr=1e-5", "--max_lr=1"])
    said = capsys.readouterr()
    picture = Path("logs/tune/small/learning_rate.png")
    path, found, use = said.out.splitlines()
    assert (code, said.err, path) == (0, "", str(picture))
    rate = float(found.removeprefix("learning rate ").partition(":")[0])
    assert 1e-4 < rate < 0.1
    assert use.startswith("use it: cnn-lightning fit --model=LeNet")
    assert use.endswith(f"--optimizer.init_args.lr {rate:.2g}")
    with Image.open(tmp_path / picture) as image:
        assert image.size == (800, 450)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / picture]
    assert not list(scratch.iterdir())
    # what is said can be used
    more = ["--optimizer.init_args.lr", f"{rate:.2g}", "--trainer.fast_dev_run=true"]
    assert main(["fit", *argv, *more, "--log_dir", str(tmp_path / "logs")]) == 0


def test_losses_are_those_of_training_and_weights_are_left_alone(scratch: Path) -> None:
    cli = build(scratch)
    before = {key: value.clone() for key, value in cli.model.state_dict().items()}
    settings = dict(cli.model.optimizer)
    seen: list[float] = []
    rates: list[float] = []
    step = cli.model.training_step

    def watched(*args: Any) -> Any:
        loss = step(*args)
        seen.append(loss.item())
        rates.append(cli.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    cli.model.training_step = watched  # type: ignore[method-assign]
    found = find_learning_rate(cli.model, cli.datamodule, cli.trainer, 1e-5, 1e-2, 40)
    assert found.losses == pytest.approx(seen, rel=1e-4)
    assert found.rates == pytest.approx(rates, rel=1e-6)
    assert (found.rates[0], len(found.rates)) == (pytest.approx(1e-5), 40)
    assert found.rates[-1] == pytest.approx(1e-2)
    state = cli.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.items())
    assert cli.model.optimizer == settings
    assert not list(scratch.iterdir())


def test_losses_are_means_of_a_steps_parts_of_which_the_last_has_fewer(scratch: Path) -> None:
    # 180 images in batches of 16: 5, 5, and 2 in each epoch
    cli = build(scratch, "--trainer.accumulate_grad_batches=5")
    seen: list[tuple[float, float]] = []
    step = cli.model.training_step

    def watched(*args: Any) -> Any:
        loss = step(*args)
        seen.append((cli.trainer.optimizers[0].param_groups[0]["lr"], loss.item()))
        return loss

    cli.model.training_step = watched  # type: ignore[method-assign]
    found = find_learning_rate(cli.model, cli.datamodule, cli.trainer, 1e-5, 1e-2, 21)
    assert len(seen) == 7 * 12
    epochs = [range(start, start + 12) for start in range(0, len(seen), 12)]
    steps = [list(part) for epoch in epochs for part in (epoch[:5], epoch[5:10], epoch[10:])]
    for rate, loss, parts in zip(found.rates, found.losses, steps, strict=True):
        assert loss == pytest.approx(sum(seen[part][1] for part in parts) / len(parts), rel=1e-5)
        assert {seen[part][0] for part in parts} == {rate}
    assert found.rates[-1] == pytest.approx(1e-2)


def test_a_run_that_diverges_ends_early(scratch: Path) -> None:
    cli = build(scratch)
    step, count = cli.model.training_step, 0

    def exploding(*args: Any) -> Any:
        nonlocal count
        count += 1
        return step(*args) * (100 if count > 15 else 1)

    cli.model.training_step = exploding  # type: ignore[method-assign]
    found = find_learning_rate(cli.model, cli.datamodule, cli.trainer, 1e-9, 1e-8, 40)
    assert (count, len(found.losses)) == (16, 16)


@pytest.mark.parametrize(
    ("optimizer", "own"),
    [
        # as high as lr is at first, which does not make it follow
        (["MuonAdamW", "--optimizer.init_args.adam_lr=1e-5"], {1e-5}),
        (["MuonSGD", "--optimizer.init_args.linear_lr=0.002"], {0.002, 0.05}),
    ],
    ids=["MuonAdamW", "MuonSGD"],
)
def test_rates_that_lr_does_not_set_stay(
    optimizer: list[str], own: set[float], scratch: Path
) -> None:
    cli = build(scratch, "--optimizer", *optimizer, "--optimizer.init_args.lr=1e-5")
    seen: list[tuple[float, ...]] = []
    step = cli.model.training_step

    def watched(*args: Any) -> Any:
        groups = cli.trainer.optimizers[0].param_groups
        seen.append(tuple(group["lr"] for group in groups if "ns_steps" in group))
        assert {group["lr"] for group in groups if "ns_steps" not in group} == own
        return step(*args)

    cli.model.training_step = watched  # type: ignore[method-assign]
    found = find_learning_rate(cli.model, cli.datamodule, cli.trainer, 1e-5, 1e-2, 20)
    assert [rates for (*rates,) in seen] == [[rate] for rate in found.rates]
    assert found.rates[-1] == pytest.approx(1e-2)


def test_an_optimizer_whose_lr_steps_nothing_is_refused(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a head has no kernels
    argv = [*ARGV, "--model.freeze=backbone", "--optimizer=MuonAdamW", "--steps=20"]
    assert main(["tune", *argv]) == 2
    assert "lr of MuonAdamW is the rate of no parameter" in capsys.readouterr().err


def test_a_classifiers_own_optimizer_is_swept_as_a_whole(scratch: Path) -> None:
    class Own(LeNet):
        def configure_optimizers(self) -> Any:
            groups = [{"params": [one], "lr": 0.1} for one in self.parameters()]
            return torch.optim.Adam(groups)

    cli = build(scratch)
    found = find_learning_rate(Own(10), cli.datamodule, cli.trainer, 1e-5, 1e-2, 20)
    groups = cli.trainer.optimizers[0].param_groups
    assert {group["lr"] for group in groups} == {found.rates[-1]}


@pytest.mark.parametrize(
    ("arguments", "heads"), [({}, 1.6), ({"freeze": "backbone"}, 1.0)], ids=["trained", "frozen"]
)
def test_loss_of_a_guess_counts_auxiliary_heads_where_they_train(
    arguments: dict[str, Any], heads: float
) -> None:
    classifier = Inception(10, version="googlenet", stem="small", **arguments)
    classifier.adapt_to(ShapesDataModule(num_images=20, num_test=20))
    assert _guess(classifier) == pytest.approx(heads * math.log(10))


def test_loss_that_does_not_fall_suggests_nothing(
    scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    argv = ["--steps=20", "--min_lr=1e-9", "--max_lr=1e-8", "--output", str(folder)]
    assert main(["tune", *ARGV, *argv]) == 1
    said = capsys.readouterr()
    assert "no rate from 1e-09 to 1e-08 makes the loss fall" in said.err
    assert said.out.splitlines() == [str(folder / "learning_rate.png")]


def test_batches_really_grow_until_the_memory_ends(scratch: Path) -> None:
    cli = build(scratch)
    before = {key: value.clone() for key, value in cli.model.state_dict().items()}
    sizes: list[int] = []
    step = cli.model.training_step

    def limited(batch: Any, batch_idx: int) -> Any:
        sizes.append(len(batch.images))
        if len(batch.images) > 64:
            # what torch says on a CPU
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return step(batch, batch_idx)

    cli.model.training_step = limited  # type: ignore[method-assign]
    assert find_batch_size(cli.model, cli.datamodule, cli.trainer, 8192) == (64, True)
    # three steps of each; an epoch of 180 images ends with what is left of them
    assert sizes == [16] * 3 + [32] * 3 + [64, 64, 52] + [128]
    state = cli.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.items())
    assert not list(scratch.iterdir())


def test_search_ends_at_the_limit_with_a_size_that_ran(scratch: Path) -> None:
    cli = build(scratch)
    assert find_batch_size(cli.model, cli.datamodule, cli.trainer, 64) == (64, False)
    cli = build(scratch)
    # 180 training images
    assert find_batch_size(cli.model, cli.datamodule, cli.trainer, 8192) == (128, False)


def test_network_whose_training_passes_by_its_forward_is_measured_too(scratch: Path) -> None:
    cli = build(scratch)
    network = cli.model.network
    network.auxiliary_weight = 0.3  # as Inception has it
    network.auxiliary_logits = lambda images: (network.head(network.backbone(images)), [])  # type: ignore[method-assign]
    found = find_batch_size(cli.model, cli.datamodule, cli.trainer, FIRST_BATCH + 1)
    assert found == (FIRST_BATCH, False)


def test_batch_size_is_said_with_what_to_do_next(
    scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*ARGV, "--batch_size", "--max_batch_size=40", "--trainer.accelerator=cpu"]
    assert main(["tune", *argv]) == 0
    found, use, rate = capsys.readouterr().out.splitlines()
    assert found.startswith("batch size 32: it fits; larger ones were not tried")
    assert "cnn-lightning fit --model=LeNet" in use
    assert "--batch_size " not in use
    assert use.endswith("--data.batch_size 32")
    assert "cnn-lightning tune --model=LeNet" in rate


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch_size", "--trainer.accelerator=cpu"], "--max_batch_size 512"),
        (["--batch_size", "--max_batch_size=4"], "give more than 16"),
        (["--min_lr=1", "--max_lr=0.1"], "are no range"),
        (["--min_lr=0"], "are no range"),
        (["--steps=3"], "give at least 20"),
        (["--ckpt_path=last"], "tune reads no checkpoint"),
        (["--model.activation=rellu"], "expected one of"),
        (["--trainer.devices=2", "--trainer.accelerator=cpu"], "--trainer.devices 1"),
    ],
    ids=str,
)
def test_mistakes_are_refused(
    argv: list[str], message: str, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *ARGV, *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not list(scratch.iterdir())


def test_lightnings_tuner_sets_the_rate_of_a_classifier_in_python(tmp_path: Path) -> None:
    trainer = L.Trainer(
        max_epochs=9, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    classifier = LeNet(10)
    data = ShapesDataModule(num_images=200, num_test=20, batch_size=16)
    found = Tuner(trainer).lr_find(classifier, datamodule=data, num_training=30)
    assert found is not None
    rate = found.suggestion()
    assert classifier.learning_rate == rate
    assert classifier.optimizer["init_args"] == {**DEFAULT_OPTIMIZER["init_args"], "lr": rate}
    assert classifier.hparams["optimizer"] == classifier.optimizer
    assert LeNet(10).learning_rate == DEFAULT_OPTIMIZER["init_args"]["lr"] != rate
