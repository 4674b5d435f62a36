"""What runs in a process of its own: `fit`, watched, up to its first step or for an epoch."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from cnn_lightning.commands.arguments import read_start
from cnn_lightning.commands.benchmarking.timing import clock, peak_memory
from cnn_lightning.commands.benchmarking.training_step import MeasuredCLI
from cnn_lightning.commands.training import silence
from cnn_lightning.imports import allow_modules


class FirstStep(Callback):
    """Leaves the process after the first training step.

    Args:
        began: When the process was started, as `time.time` tells it.
        result: The file that gets the time it took.
    """

    def __init__(self, began: float, result: Path) -> None:
        self.began = began
        self.result = result

    @override
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        clock(trainer.strategy.root_device)
        self.result.write_text(json.dumps({"s": time.time() - self.began}))
        # at once: to tidy up is no part of the start
        os._exit(0)


class EpochCosts(Callback):
    """Notes what an epoch took in memory, and what checkpoints take at its end.

    Args:
        result: The file that gets it.
        repeats: Checkpoints written.
    """

    def __init__(self, result: Path, repeats: int) -> None:
        self.result = result
        self.repeats = repeats

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        on_gpu = device.type == "cuda"
        costs: dict[str, Any] = {
            "peak_bytes": peak_memory(),
            "gpu_bytes": torch.cuda.max_memory_allocated(device) if on_gpu else None,
            "checkpoint_s": [],
            "plain_s": [],
        }
        ours, plain = (self.result.with_name(f"{name}.ckpt") for name in ("ours", "plain"))
        for _ in range(self.repeats):
            began = clock(device)
            trainer.save_checkpoint(ours)
            costs["checkpoint_s"].append(clock(device) - began)
            began = clock(device)
            torch.save(
                {
                    "network": pl_module.network.state_dict(),  # type: ignore[union-attr]
                    "optimizer": trainer.optimizers[0].state_dict(),
                    "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
                },
                plain,
            )
            costs["plain_s"].append(clock(device) - began)
        costs["checkpoint_bytes"] = ours.stat().st_size
        costs["plain_bytes"] = plain.stat().st_size
        self.result.write_text(json.dumps(costs))


def main(argv: Sequence[str]) -> None:
    """Run `fit` for one epoch.

    Args:
        argv: When the process was started, the file for the result, and what to do as JSON.
    """
    began, result, asked = float(argv[0]), Path(argv[1]), json.loads(argv[2])
    watch: Callback = FirstStep(began, result)
    if asked["what"] == "epoch":
        watch = EpochCosts(result, asked["repeats"])
    silence()
    with allow_modules(asked["modules"]):
        start = read_start("fit", [*asked["argv"], "--trainer.max_epochs", "1"])
        MeasuredCLI(start, [watch])
