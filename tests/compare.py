"""Deep, exact comparison of checkpoints that names what differs."""

from pathlib import Path
from typing import Any

import torch

# wall-clock values, folders and resume counters, which say nothing about what was learnt
IGNORED = {"dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"}


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        found = [f"{where}.{key} in one only" for key in first.keys() ^ second.keys()]
        for key in first.keys() & second.keys():
            if key not in IGNORED:
                found += differences(first[key], second[key], f"{where}.{key}")
        return found
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            return [f"{where}: {len(first)} and {len(second)} items"]
        return [
            line
            for number, (a, b) in enumerate(zip(first, second, strict=True))
            for line in differences(a, b, f"{where}[{number}]")
        ]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [f"{where}: tensors differ"]
    return [] if first == second else [f"{where}: {first!r} and {second!r}"]


def assert_same_checkpoint(first: Path, second: Path) -> None:
    contents = [torch.load(path, weights_only=True) for path in (first, second)]
    found = differences(*contents)
    assert not found, "\n".join(found[:20])
