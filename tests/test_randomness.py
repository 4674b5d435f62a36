import traceback

import pytest
import torch

from cnn_lightning.randomness import key_to_seed, seed_torch


def test_what_layers_draw_is_what_torchs_own_seeding_gives() -> None:
    seed_torch("step", 1, 2)
    drawn = torch.rand(5)
    torch.manual_seed(key_to_seed("step", 1, 2))
    assert torch.equal(drawn, torch.rand(5))
    seed_torch("step", 1, 3)
    assert not torch.equal(drawn, torch.rand(5))


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="then nothing is put off")
def test_seeding_writes_no_stack_down_for_a_gpu_that_is_not_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    monkeypatch.setattr(traceback, "format_stack", lambda *args: written.append("a stack") or [])
    seed_torch("step", 1)
    assert not written
    torch.manual_seed(0)  # as a control: it does
    assert written


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_is_seeded_too() -> None:
    draws = []
    for _ in range(2):
        torch.ones(1, device="cuda")
        seed_torch("step", 1)
        draws.append(torch.rand(5, device="cuda"))
    assert torch.equal(*draws)
