import pytest
import torch
from torch import nn

from cnn_lightning.analysis import health
from cnn_lightning.analysis.health import SATURATED, LayerStatistics, measure_layers


def statistics_of(layer: nn.Module, *batches: torch.Tensor) -> LayerStatistics:
    network = nn.Sequential(layer)
    return measure_layers(network, {"layer": network[0]}, batches)["layer"]


def test_relu_behind_a_bias_of_minus_1000_is_dead() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    nn.init.constant_(network[0].bias, -1000.0)
    found = measure_layers(network, {"relu": network[1]}, [torch.randn(8, 1, 6, 6)])["relu"]
    assert found.dead == 1.0
    assert (found.mean, found.std) == (0.0, 0.0)


@pytest.mark.parametrize("num_dead", [0, 1, 3])
def test_share_of_dead_channels_is_exact(num_dead: int) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    with torch.no_grad():
        network[0].bias.fill_(1000.0)
        network[0].bias[:num_dead] = -1000.0
    found = measure_layers(network, {"relu": network[1]}, [torch.randn(8, 1, 6, 6)])["relu"]
    assert found.dead == num_dead / 4


def test_a_unit_that_is_active_once_in_one_batch_lives() -> None:
    silent, once = -torch.ones(5, 3), -torch.ones(5, 3)
    once[4, 1] = 0.5
    assert statistics_of(nn.ReLU(), silent, once, silent).dead == pytest.approx(2 / 3)
    assert statistics_of(nn.ReLU(), silent, silent).dead == 1.0


def test_share_of_saturated_values_is_exact() -> None:
    limit = torch.atanh(torch.tensor(SATURATED))
    inputs = torch.stack([limit + 0.01, limit - 0.01, -limit - 0.01, -limit + 0.01])
    found = statistics_of(nn.Tanh(), inputs[:, None])
    assert found.saturated == 0.5
    assert found.dead is None


def test_only_functions_that_die_or_saturate_say_so() -> None:
    found = statistics_of(nn.GELU(), torch.randn(4, 3))
    assert (found.dead, found.saturated) == (None, None)


def test_mean_and_spread_over_uneven_batches_equal_those_of_all_at_once() -> None:
    values = 1000 + torch.randn(37, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = statistics_of(nn.Identity(), values[:5], values[5:36], values[36:])
    assert found.mean == pytest.approx(float(values.double().mean()), rel=1e-6)
    # a spread of 1 around 1000: what plain float32 sums of squares would lose
    assert found.std == pytest.approx(float(values.double().std(correction=0)), rel=1e-3)
    assert found.count == values.numel()
    assert (found.lowest, found.highest) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Tanh()])
def test_values_counted_in_parts_and_in_any_layout_give_the_same(
    layer: nn.Module, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = 2 * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    values[:, 1] = -3
    values[4, 2, 3, 3] = 9
    whole = statistics_of(layer, values)
    monkeypatch.setattr(health, "_MAX_AT_ONCE", 7)
    found = statistics_of(layer, values.contiguous(memory_format=layout))
    assert found.count == whole.count == values.numel()
    assert found.mean == pytest.approx(float(layer(values).mean()), rel=1e-6)
    assert found.std == pytest.approx(float(layer(values).std(correction=0)), rel=1e-6)
    assert (found.lowest, found.highest) == (whole.lowest, whole.highest)
    assert (found.dead, found.saturated) == (whole.dead, whole.saturated)
    assert found.bins.tolist() == whole.bins.tolist()
    assert found.dead == (pytest.approx(1 / 3) if isinstance(layer, nn.ReLU) else None)


def test_bins_hold_every_value() -> None:
    first, second = torch.linspace(0, 1, 101)[:, None], torch.tensor([[-5.0], [7.0]])
    found = statistics_of(nn.Identity(), first, second)
    assert found.bins.sum() == 103
    assert (found.edges[0], found.edges[-1]) == (0, 1)
    alone = statistics_of(nn.Identity(), first)
    assert (found.bins - alone.bins).nonzero().flatten().tolist() == [0, 49]


def test_a_layer_that_puts_out_one_number_alone_is_counted() -> None:
    found = statistics_of(nn.ReLU(), torch.zeros(4, 2))
    assert found.bins.sum() == 8
    assert found.dead == 1.0
