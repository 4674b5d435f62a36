"""In which arithmetic a run computes: precision, TF32, cuDNN's algorithms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from cnn_lightning.errors import UserError

_BF16 = ("bf16-mixed", "bf16")
_HALF = ("16-mixed", "16")
_OTHER_WEIGHTS = ("16-true", "bf16-true", "64-true", "64")


def settle_arithmetic(trainer: Namespace, *, cpu_bf16: bool, is_resumed: bool) -> None:
    """Fill in what the settings of a training leave open, so that its config says it.

    On a GPU that has bfloat16: mixed precision, and cuDNN tries which algorithm is fastest, unless
    the run is to be deterministic. Else float32, but for what `cpu_bf16` asks for.

    Args:
        trainer: Settings of the Trainer; changed in place.
        cpu_bf16: Whether a CPU computes in mixed precision, too, if it multiplies bfloat16.
        is_resumed: Whether the run has begun already; it keeps float32 if nothing else is said.
    """
    if is_on_cuda(trainer):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # it has AVX512-BF16, as every processor with AMX has; torch has no public name for this
        has_bf16 = cpu_bf16 and is_on_cpu(trainer) and torch.cpu._is_avx512_bf16_supported()
    if trainer.precision is None and not trainer.plugins:  # a plugin may be a precision
        trainer.precision = "bf16-mixed" if has_bf16 and not is_resumed else "32-true"
    if trainer.benchmark is None and is_on_cuda(trainer) and not trainer.deterministic:
        trainer.benchmark = True


def is_bfloat16(trainer: Namespace) -> bool:
    """Whether these settings of the Trainer, once settled, are for layers in bfloat16."""
    return str(trainer.precision) in _BF16


def is_on_cuda(trainer: Namespace) -> bool:
    """Whether these settings of the Trainer put a run on an NVIDIA GPU of this machine."""
    return trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def is_on_cpu(trainer: Namespace) -> bool:
    """Whether these settings of the Trainer put a run on the processor of this machine."""
    return trainer.accelerator == "cpu" or (
        trainer.accelerator == "auto" and not torch.accelerator.is_available()
    )


def find_slowness(trainer: Namespace) -> str | None:
    """What to say of a precision that makes a run far slower on this machine; `None` if it is not.

    Where oneDNN does not take bfloat16, torch computes a convolution in a loop of its own.
    """
    if not is_bfloat16(trainer) or not is_on_cpu(trainer):
        return None
    # a torch built without oneDNN has no such operator, and the same loop for float32
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not has_onednn or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    return (
        f"precision {trainer.precision} is many times slower than float32 here: this processor"
        " has no instructions for it; use --trainer.precision 32-true"
    )


def refuse_other_precision(trainer: Namespace) -> None:
    """Refuse what Lightning would quietly turn into bf16, and weights that images do not fit.

    Raises:
        UserError: float16 is asked for on a CPU, or weights in another type than float32.
    """
    if str(trainer.precision) in _OTHER_WEIGHTS:
        raise UserError(
            f"precision {trainer.precision}: weights and images are float32 here",
            "use --trainer.precision bf16-mixed, in which layers compute in bfloat16",
        )
    if is_on_cpu(trainer) and str(trainer.precision) in _HALF:
        raise UserError(
            f"precision {trainer.precision} does not exist on a CPU",
            "use --trainer.precision bf16-mixed, or a GPU",
        )


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Let a GPU multiply float32 in TF32 inside the block, or forbid it.

    TF32 keeps 10 of float32's 23 bits of mantissa and adds up in float32. Elsewhere than on an
    NVIDIA GPU nothing changes.

    Args:
        device: Where the block computes.
        tf32: Whether it may.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def describe(
    trainer: Trainer,
    *,
    channels_last: bool,
    tf32: bool,
    batch_size: int,
    keeps_memory: bool,
    backend: str | None,
) -> str:
    """What a training computes on and how, in one line.

    Args:
        trainer: As it was built.
        channels_last: The layout of the network.
        tf32: Whether TF32 is allowed.
        batch_size: Images that go through the network at once.
        keeps_memory: Whether freed memory is kept for the next step.
        backend: What compiles the network, if anything.
    """
    device = trainer.strategy.root_device
    parts = [
        f"{trainer.world_size} × {device.type}",
        f"precision {trainer.precision}",
        "channels_last" if channels_last else "contiguous",
    ]
    if device.type == "cuda":
        parts.append(f"TF32 {'allowed' if tf32 else 'off'}")
        parts.append(f"cuDNN {'autotuned' if torch.backends.cudnn.benchmark else 'not autotuned'}")
    if trainer.accumulate_grad_batches > 1:
        parts.append(f"steps of {trainer.accumulate_grad_batches} × {batch_size} images")
    if keeps_memory:
        parts.append("freed memory kept")
    if backend is not None:
        parts.append(f"compiled by {backend}")
    return ", ".join(parts)
