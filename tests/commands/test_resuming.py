"""A checkpoint's state of an optimizer is one that the same optimizer leaves, whatever it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnn_lightning.checkpoint_content import Content
from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.classifiers.optimization import build_optimizer, build_schedule
from cnn_lightning.commands.resuming import check_resumable
from cnn_lightning.errors import UserError


class Scale(nn.Module):
    """The scales of channels as ConvNeXt has them, C×1×1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Scaled(ImageClassifier):
    """A network that scales channels."""

    def __init__(self, **kwargs: Any) -> None:
        first = (nn.Conv2d(3, 4, 3), Scale())
        last = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        super().__init__(nn.Sequential(*first, *last), **kwargs)


class Plain(torch.optim.Optimizer):
    """One that cannot be built without its rate."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {})
        for group in self.param_groups:
            group["lr"] = lr

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for one in group["params"]:
                self.state[one] = {"steps": 1}


def content_after_a_step(classifier: ImageClassifier) -> Content:
    optimizer = build_optimizer(classifier.optimizer, classifier)
    schedule = build_schedule(classifier.schedule, optimizer, 10)
    classifier(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    values = {
        "hyper_parameters": {
            "optimizer": classifier.optimizer,
            "schedule": classifier.schedule,
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "global_step": 1,
        "state_dict": {},
    }
    return Content(values, Path("last.ckpt"))


@pytest.mark.parametrize("kind", ["MuonAdamW", "MuonSGD", "Adafactor", "AdamW", "Plain"])
def test_what_an_optimizer_keeps_is_taken(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "Plain", Plain, raising=False)
    classifier = Scaled(optimizer={"class_path": kind, "init_args": {"lr": 0.01}})
    check_resumable(content_after_a_step(classifier), classifier)


@pytest.mark.parametrize("kind", ["SGD", "RMSprop"])
def test_what_is_kept_for_a_momentum_that_a_schedule_raised_from_0_is_taken(kind: str) -> None:
    optimizer = {"class_path": kind, "init_args": {"lr": 0.01}}
    cycle = {"class_path": "OneCycleLR", "init_args": {"max_lr": 0.01}}
    content = content_after_a_step(Scaled(optimizer=optimizer, schedule=cycle))
    (state,) = content.values["optimizer_states"]
    assert all("momentum_buffer" in one for one in state["state"].values())
    check_resumable(content, Scaled(optimizer=optimizer, schedule=cycle))
    # another schedule leaves the momentum at 0, and what was kept where it is
    check_resumable(content, Scaled(optimizer=optimizer))
    state["state"][0]["momentum_buffer"] = None
    with pytest.raises(UserError, match="momentum_buffer in its optimizer's state is None"):
        check_resumable(content, Scaled(optimizer=optimizer, schedule=cycle))


def test_what_another_keeps_is_refused() -> None:
    classifier = Scaled(optimizer={"class_path": "MuonAdamW", "init_args": {"lr": 0.01}})
    content = content_after_a_step(classifier)
    state = content.values["optimizer_states"][0]["state"]
    (scales,) = (
        place
        for place, one in state.items()
        if one.get("exp_avg", torch.zeros(())).shape == (4, 1, 1)
    )
    state[scales] = {"momentum_buffer": torch.zeros(4, 1, 1)}
    with pytest.raises(UserError, match="optimizer"):
        check_resumable(content, classifier)
