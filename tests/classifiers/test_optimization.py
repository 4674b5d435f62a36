"""Optimizers and schedules by class and arguments."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from cnn_lightning.classifiers.optimization import (
    build_optimizer,
    build_schedule,
    keep_new_arguments,
    run_length,
)
from cnn_lightning.errors import UserError

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


def rates(spec: dict[str, object], length: int) -> list[float]:
    optimizer = build_optimizer(SGD, nn.Linear(2, 2))
    schedule = build_schedule(spec, optimizer, length)
    found = []
    for _ in range(length):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("spec", "argument"),
    [
        ({"class_path": "OneCycleLR", "init_args": {"max_lr": 0.1}}, "total_steps"),
        ({"class_path": "CosineAnnealingLR"}, "T_max"),
        ({"class_path": "LinearLR"}, "total_iters"),
    ],
)
def test_the_schedules_of_torch_are_told_the_length(spec: dict[str, object], argument: str) -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    kind = getattr(torch.optim.lr_scheduler, str(spec["class_path"]))
    reference = kind(optimizer, **{**spec.get("init_args", {}), argument: 20})  # type: ignore[dict-item]
    wanted = []
    for _ in range(20):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(spec, 20) == wanted


def test_a_schedule_that_needs_no_length() -> None:
    spec = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}}
    assert rates(spec, 4) == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_weight_decay_spares_biases() -> None:
    spec = {"class_path": "SGD", "init_args": {"lr": 0.1, "weight_decay": 0.5}}
    groups = build_optimizer(spec, nn.Linear(2, 2)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0]


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "torch.nn.Linear", "Sgd", "no.such"]
)
def test_what_is_no_optimizer_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        build_optimizer({"class_path": name}, nn.Linear(2, 2))


def test_wrong_arguments_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="lrr"):
        build_optimizer({"class_path": "SGD", "init_args": {"lrr": 1}}, nn.Linear(2, 2))


def test_a_schedule_that_waits_for_a_metric_is_refused() -> None:
    optimizer = build_optimizer(SGD, nn.Linear(2, 2))
    with pytest.raises(UserError, match="waits for a metric"):
        build_schedule({"class_path": "ReduceLROnPlateau"}, optimizer, 10)


def test_new_rates_reach_their_own_groups_and_nothing_else() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    kept = {"lr": 0.1, "adam_weight_decay": 0.1}
    before, now = (
        {"class_path": "MuonAdamW", "init_args": {**kept, "adam_lr": rate, "momentum": momentum}}
        for rate, momentum in ((0.2, 0.5), (0.4, 0.6))
    )
    optimizer = build_optimizer(before, module)
    schedule = build_schedule({"class_path": "LinearLR"}, optimizer, 10)
    checkpoint = {
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
    }
    keep_new_arguments(checkpoint, before, now, module)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    # LinearLR begins with a third of the rate
    assert [group["lr"] for group in groups] == pytest.approx([0.1 / 3, 0.4 / 3, 0.4 / 3])
    assert [group["initial_lr"] for group in groups] == [0.1, 0.4, 0.4]
    assert [group.get("momentum") for group in groups] == [0.6, None, None]
    assert [group["weight_decay"] for group in groups] == [0, 0.1, 0]
    assert checkpoint["lr_schedulers"][0]["base_lrs"] == [0.1, 0.4, 0.4]


class Lengths(LightningModule):
    """Asks for the length of a run, and ends it."""

    found: tuple[int | None, int | None]

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(5))  # type: ignore[arg-type]

    def training_step(self, batch: torch.Tensor) -> None:
        raise AssertionError

    def configure_optimizers(self) -> None:
        steps, epochs = (run_length(self.trainer, by_step=by_step) for by_step in (True, False))
        self.found = (steps, epochs)
        raise InterruptedError


@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        ({"max_epochs": 4}, 12, 4),
        ({"max_epochs": 4, "max_steps": 8}, 8, 3),  # three steps an epoch
        ({"max_epochs": -1, "max_steps": 9}, 9, 3),
        ({"max_steps": 10}, 10, 4),
        ({"max_epochs": 2, "max_steps": 99}, 6, 2),
        ({"max_epochs": 0}, 3, 1),
        ({"max_epochs": -1, "max_time": "00:00:00:09"}, None, None),
        ({"max_time": "00:00:00:09"}, None, None),
    ],
)
def test_a_run_is_as_long_as_its_first_limit(
    limits: dict[str, object], steps: int | None, epochs: int | None
) -> None:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        accumulate_grad_batches=2,
        enable_progress_bar=False,
        **quiet,  # type: ignore[arg-type]
        **limits,  # type: ignore[arg-type]
    )
    module = Lengths()
    with pytest.raises(InterruptedError):
        trainer.fit(module)
    assert module.found == (steps, epochs)


def test_a_schedule_that_needs_a_length_is_refused_where_there_is_none() -> None:
    optimizer = build_optimizer(SGD, nn.Linear(2, 2))
    for spec in ({"class_path": "WarmupCosine"}, {"class_path": "CosineAnnealingLR"}):
        with pytest.raises(UserError, match=r"needs the run's length.*") as refused:
            build_schedule(spec, optimizer, None)
        assert "--trainer.max_epochs or --trainer.max_steps" in str(refused.value.remedy)
    build_schedule({"class_path": "ExponentialLR", "init_args": {"gamma": 0.9}}, optimizer, None)
    given = {"class_path": "CosineAnnealingLR", "init_args": {"T_max": 7}}
    assert build_schedule(given, optimizer, None).T_max == 7  # type: ignore[attr-defined]
