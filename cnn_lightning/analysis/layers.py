"""Finding layers of a network by place, kind or name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from cnn_lightning.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
WITH_KERNELS = (*CONVOLUTIONS, nn.Linear)
# never below 0, and 0 for good once their input is never above it
RECTIFIERS = (nn.ReLU, nn.ReLU6)
ACTIVATIONS = (
    *RECTIFIERS,
    *(nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Hardswish),
    *(nn.Softplus, nn.Mish, nn.Hardtanh, nn.Hardsigmoid),
)
_PLACES = ("first", "last", "all")


def named_layers(network: nn.Module) -> dict[str, nn.Module]:
    """All layers without parts of their own, by their path in the network, in its order.

    Of a network with a `backbone` and a `head` those two alone: auxiliary heads are for training.
    """
    children = dict(network.named_children())
    parts = [name for name in ("backbone", "head") if name in children]
    return {
        path: module
        for path, module in network.named_modules()
        if path
        and not any(True for _ in module.children())
        and (len(parts) < 2 or path.partition(".")[0] in parts)
    }


def select_layers(network: nn.Module, which: str | Sequence[str]) -> dict[str, nn.Module]:
    """Choose layers of a network.

    Args:
        network: Any module.
        which: `first`, `last` or `all` of the convolutions; a class such as `MaxPool2d`; a pattern
            of paths such as `backbone.layer1.*` (`*`, `?`, `[…]` as in a shell; modules with parts
            of their own match only by their full path); or several of these.

    Returns:
        The layers by their path, in the network's order; none where a network without convolutions
        is asked for them.

    Raises:
        UserError: One of `which` names nothing; the message lists the names there are.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
        >>> list(select_layers(network, ["first", "ReLU"]))
        ['0', '1']
    """
    layers = named_layers(network)
    modules = dict(network.named_modules())
    chosen: set[str] = set()
    for wanted in [which] if isinstance(which, str) else which:
        found = _matching(layers, wanted)
        if not found and wanted in modules and wanted:
            found = [wanted]
        if not found and wanted not in _PLACES:
            raise UserError(f"no layer is {wanted!r}", _list_names(layers))
        chosen.update(found)
    return {path: module for path, module in modules.items() if path in chosen}


def _matching(layers: dict[str, nn.Module], wanted: str) -> list[str]:
    if wanted in _PLACES:
        convolutions = [path for path, m in layers.items() if isinstance(m, CONVOLUTIONS)]
        return {"first": convolutions[:1], "last": convolutions[-1:], "all": convolutions}[wanted]
    of_class = [path for path, module in layers.items() if type(module).__name__ == wanted]
    return of_class or [path for path in layers if fnmatchcase(path, wanted)]


def _list_names(layers: dict[str, nn.Module]) -> str:
    kinds = sorted({type(module).__name__ for module in layers.values()})
    names = list(layers)
    shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
    return f"give first, last, all, a class ({', '.join(kinds)}) or a pattern of: {shown}"
