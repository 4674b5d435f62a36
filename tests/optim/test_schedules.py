import io
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torchvision.models import resnet18

from cnn_lightning.optim import WarmupCosine, WarmupLinear, WarmupSteps, split_weight_decay

SCHEDULES: dict[str, tuple[type[LRScheduler], dict[str, Any]]] = {
    "cosine": (WarmupCosine, {"warmup": 0.1, "final": 0.01}),
    "linear": (WarmupLinear, {"warmup": 0.25, "final": 0.1}),
    "steps": (WarmupSteps, {"warmup": 0.1, "milestones": [0.3, 0.55, 0.7], "factor": 0.2}),
}
TOTAL = 100
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def optimizer(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates or (0.5,)],
        momentum=0.9,
    )


def build(name: str, of: torch.optim.Optimizer, total_steps: int = TOTAL) -> LRScheduler:
    kind, arguments = SCHEDULES[name]
    return kind(of, total_steps, **arguments)


def follow(schedule: LRScheduler, num_steps: int) -> list[float]:
    """The learning rate of the first group at each step."""
    rates = []
    for _ in range(num_steps):
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return rates


def formula(name: str, step: int) -> float:
    """The fraction of the peak, written out for `SCHEDULES` and 100 steps."""
    warmup = {"cosine": 10, "linear": 25, "steps": 10}[name]
    if step < warmup:
        return (step + 1) / (warmup + 1)
    step = min(step, TOTAL)
    if name == "cosine":
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
    if name == "linear":
        return 1 - 0.9 * (step - 25) / 75
    return 0.2 ** ((step >= 30) + (step >= 55) + (step >= 70))


@every_schedule
def test_rates_follow_the_formula_and_stay_at_the_end(name: str) -> None:
    rates = follow(build(name, optimizer()), TOTAL + 20)
    assert rates == pytest.approx([0.5 * formula(name, step) for step in range(TOTAL + 20)])
    assert set(rates[TOTAL:]) == {rates[TOTAL]}


def test_cosine_without_warmup_is_torchs() -> None:
    ours = follow(WarmupCosine(optimizer(), TOTAL, warmup=0.0), TOTAL)
    theirs = follow(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), TOTAL), TOTAL)
    assert ours == pytest.approx(theirs)


def test_steps_without_warmup_are_torchs() -> None:
    ours = follow(WarmupSteps(optimizer(), TOTAL), TOTAL)
    theirs = follow(torch.optim.lr_scheduler.MultiStepLR(optimizer(), [50, 75]), TOTAL)
    assert ours == pytest.approx(theirs)


@every_schedule
def test_the_peak_is_the_optimizers_rate_and_no_step_has_a_rate_of_zero(name: str) -> None:
    rates = follow(build(name, optimizer()), TOTAL)
    assert max(rates) == 0.5
    assert min(rates) > 0


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupLinear])
def test_the_peak_is_reached_once(kind: type[LRScheduler]) -> None:
    assert follow(kind(optimizer(), TOTAL), TOTAL).count(0.5) == 1


@every_schedule
def test_groups_keep_their_proportions(name: str) -> None:
    schedule = build(name, optimizer(0.5, 0.05))
    follow(schedule, 40)
    first, second = schedule.get_last_lr()
    assert second == pytest.approx(first / 10)


@every_schedule
@pytest.mark.parametrize("stop", [0, 5, 29, 99, 105])
def test_resume_gives_the_same_bits_from_a_file_of_plain_values(name: str, stop: int) -> None:
    whole = follow(build(name, optimizer()), TOTAL + 10)
    first = build(name, optimizer())
    follow(first, stop)
    file = io.BytesIO()
    torch.save([first.state_dict(), first.optimizer.state_dict()], file)
    file.seek(0)
    state, optimizer_state = torch.load(file, weights_only=True)
    second = build(name, optimizer())
    second.optimizer.load_state_dict(optimizer_state)
    second.load_state_dict(state)
    assert second.get_last_lr() == first.get_last_lr()
    assert follow(second, TOTAL + 10 - stop) == whole[stop:]


@every_schedule
def test_resume_with_another_length_follows_that_length(name: str) -> None:
    first = build(name, optimizer())
    follow(first, 60)
    second = build(name, optimizer(), total_steps=200)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    longer = follow(build(name, optimizer(), total_steps=200), 160)[60:]
    assert second.get_last_lr() == longer[:1]
    assert follow(second, 100) == longer


@every_schedule
@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_the_shortest_runs_have_rates_above_zero(name: str, total_steps: int) -> None:
    rates = follow(build(name, optimizer(), total_steps), total_steps)
    assert all(0 < rate <= 0.5 for rate in rates)


@pytest.mark.parametrize("kind", [WarmupCosine, WarmupLinear])
def test_a_run_of_warmup_alone_rises_to_its_end(kind: type[LRScheduler]) -> None:
    rates = follow(kind(optimizer(), 4, warmup=1.0), 5)  # type: ignore[call-arg]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.0])


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (WarmupCosine, {"total_steps": 0}, "total_steps 0 must be at least 1"),
        (WarmupCosine, {"total_steps": 9, "warmup": 1.5}, "warmup 1.5 must lie in"),
        (WarmupCosine, {"total_steps": 9, "final": -0.1}, "final -0.1 must lie in"),
        (WarmupLinear, {"total_steps": 9, "final": 2}, "final 2 must lie in"),
        (WarmupSteps, {"total_steps": 9, "milestones": [30]}, "a milestone 30 must lie in"),
        (WarmupSteps, {"total_steps": 9, "milestones": [0.5, 0.2]}, "must rise"),
        (WarmupSteps, {"total_steps": 9, "warmup": 0.6}, "lies within the warm-up"),
        (WarmupSteps, {"total_steps": 9, "factor": 10}, "factor 10 must lie in"),
    ],
)
def test_arguments_out_of_range_are_refused(
    kind: type[LRScheduler], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(optimizer(), **arguments)


def test_weight_decay_spares_biases_and_batch_norm() -> None:
    network = resnet18()
    decayed, spared = split_weight_decay(network)
    vectors = [
        parameter
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or name == "bias"
    ]
    assert list(map(id, spared["params"])) == list(map(id, vectors))
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed
    together = {id(parameter) for group in (decayed, spared) for parameter in group["params"]}
    assert together == {id(parameter) for parameter in network.parameters()}


def test_only_what_is_trainable_is_grouped() -> None:
    network = resnet18().requires_grad_(False)
    assert split_weight_decay(network) == []
    network.fc.weight.requires_grad_(True)
    (group,) = split_weight_decay(network)
    assert group["params"][0] is network.fc.weight


def test_the_optimizer_decays_kernels_alone() -> None:
    layer = nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in (layer.weight, layer.bias)]
    sgd = torch.optim.SGD(split_weight_decay(layer), lr=0.5, weight_decay=0.5)
    (0 * layer(torch.ones(1, 2))).sum().backward()
    sgd.step()
    assert torch.equal(layer.weight, before[0] * 0.75)
    assert torch.equal(layer.bias, before[1])
