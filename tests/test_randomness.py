"""Draws that depend on a key alone."""

import traceback

import pytest
import torch

from cnn_lightning.randomness import coin_flips, key_to_seed, seed_torch, stratified_split

COUNT = 100_000
CPU = torch.device("cpu")


def by_the_paper(index: int, seed: int) -> bool:
    """SplitMix64 in Python's own numbers, which have no sign and no end."""
    most = 2**64 - 1
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & most
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & most
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & most
    return bool((z ^ (z >> 31)) & 1)


def test_coins_are_those_of_splitmix64() -> None:
    indices = torch.tensor([0, 1, 2, 49_999, 2**40])
    for key in ("a", "b", "c"):
        found = coin_flips(indices, key).tolist()
        assert found == [by_the_paper(index, key_to_seed(key)) for index in indices.tolist()]


def test_coins_are_fair_and_independent() -> None:
    indices = torch.arange(COUNT)
    first, second = coin_flips(indices, "flip", 0), coin_flips(indices, "flip", 1)
    # each of these is a count of fair coins: within five standard deviations of its half
    for coins in (first, second, first ^ second, first[1:] ^ first[:-1], first[::2]):
        away = coins.double().mean() - 0.5
        assert abs(away) < 5 * 0.5 / len(coins) ** 0.5


def test_a_coin_does_not_depend_on_the_others() -> None:
    indices = torch.arange(1000)
    order = torch.randperm(1000)
    assert torch.equal(coin_flips(indices[order], 3), coin_flips(indices, 3)[order])
    assert torch.equal(coin_flips(indices[5:6], 3), coin_flips(indices, 3)[5:6])


def split_of(names: list[str], *, seed: int = 0) -> set[str]:
    """The names in the smaller part; even numbers are of one class and odd ones of the other."""
    labels = torch.tensor([int(name) % 2 for name in names])
    larger, smaller = stratified_split(labels, 0.2, "split", seed, names=names)
    assert sorted([*larger.tolist(), *smaller.tolist()]) == list(range(len(names)))
    return {names[index] for index in smaller.tolist()}


def test_one_name_more_or_less_moves_at_most_one_other() -> None:
    names = [str(number) for number in range(80)]
    before = split_of(names)
    assert sorted(int(name) % 2 for name in before) == [0] * 8 + [1] * 8
    for place in range(80):
        without = [*names[:place], *names[place + 1 :]]
        moved = before ^ split_of(without)
        assert len(moved - {names[place]}) <= 1
        assert all(int(name) % 2 == place % 2 for name in moved)  # none of another class
    assert split_of(names[::-1]) == before
    assert split_of(names, seed=1) != before


def test_what_layers_draw_is_what_torchs_own_seeding_gives() -> None:
    seed_torch(CPU, "step", 1, 2)
    drawn = torch.rand(5)
    torch.manual_seed(key_to_seed("step", 1, 2))
    assert torch.equal(drawn, torch.rand(5))
    seed_torch(CPU, "step", 1, 3)
    assert not torch.equal(drawn, torch.rand(5))


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="then nothing is put off")
def test_seeding_writes_no_stack_down_for_a_gpu_that_is_not_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    monkeypatch.setattr(traceback, "format_stack", lambda *args: written.append("a stack") or [])
    seed_torch(CPU, "step", 1)
    assert not written
    torch.manual_seed(0)  # as a control: it does
    assert written


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_is_seeded_too() -> None:
    draws = []
    for _ in range(2):
        torch.ones(1, device="cuda")
        seed_torch(torch.device("cuda"), "step", 1)
        draws.append(torch.rand(5, device="cuda"))
    assert torch.equal(*draws)
