"""What layers put out: hooks that hand it over, and come off again."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode; each submodule's own mode comes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; each submodule's own mode comes back."""
    with in_eval_mode(module), torch.inference_mode():
        yield


@contextmanager
def listening(
    layers: Mapping[str, nn.Module], receive: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Hand over each layer's output while the block runs; the hooks come off whatever happens.

    Compiled networks run uncompiled in the block, since compiled code passes by hooks.

    Args:
        layers: Layers by name.
        receive: Called with the name and the output. A layer called again in one forward pass of
            the block counts on: `relu`, `relu#2`, ….
    """
    calls: Counter[str] = Counter()
    handles = []

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] += 1
            if isinstance(output, Tensor):
                receive(name if calls[name] == 1 else f"{name}#{calls[name]}", output)

        return hook

    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(hook_for(name)))
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()


def channels_first(maps: Tensor, images: Tensor) -> Tensor:
    """Maps with their channels before rows and columns; some layers put them last.

    Those of Swin and those within ConvNeXt do. Maps of square images are square, which tells.

    Args:
        maps: N×F×h×w or N×h×w×F, what a layer put out.
        images: N×C×H×W, what the network saw.

    Returns:
        N×F×h×w.

    Example:
        >>> channels_first(torch.zeros(2, 7, 7, 96), torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 96, 7, 7])
    """
    height, width, last = maps.shape[1:]
    is_square = images.shape[-2] == images.shape[-1]
    return maps.movedim(-1, 1) if is_square and height == width != last else maps


def record_outputs(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    images: Tensor,
    precision: Any = None,
    *,
    batch_size: int | None = None,
    select: Callable[[str, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Look at images with a network, in eval mode, and keep what some layers put out.

    Args:
        network: Takes `images`.
        layers: Layers of it by name, as `select_layers` gives them.
        images: N×C×H×W float, prepared for the network, on its device.
        precision: A context to run in, such as autocast.
        batch_size: Images per forward pass; `None` takes all N.
        select: Gives what to keep of an output, by its name; `None` keeps all of it.

    Returns:
        Outputs by name in the order of the calls, N×…, float32 on the CPU; a layer that is called
        twice appears as `name` and `name#2`, one that is never called does not.
    """
    outputs: dict[str, Tensor] = {}
    at_once = min(batch_size or len(images), len(images))

    def keep(start: int, size: int, name: str, output: Tensor) -> None:
        kept = output.detach() if select is None else select(name, output.detach())
        if size == len(images):
            # a copy: the next layer may write in place
            outputs[name] = kept.to("cpu", torch.float32, copy=True)
            return
        per_image = len(kept) // size  # several of a layer that sees windows of an image
        if name not in outputs:  # joined at the end, they would be in memory twice
            outputs[name] = torch.empty(per_image * len(images), *kept.shape[1:])
        outputs[name][per_image * start :][: len(kept)] = kept

    with evaluating(network), precision or nullcontext():
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once]
            with listening(layers, partial(keep, start, len(part))):
                network(part)
    return outputs
