"""Transfer learning: where weights come from, what is frozen, how images are prepared for it."""

import difflib
import math
import urllib.error
import urllib.parse
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from cnn_lightning.checkpoint_content import CHECKPOINT_KEY, Content
from cnn_lightning.errors import UserError
from cnn_lightning.files import load_checkpoint
from cnn_lightning.networks import Network
from cnn_lightning.preprocessing import Preprocessing

# torchvision prepares images for these by ImageNet's constants and then undoes it in the network
# (`transform_input`); both steps together are (x - 0.5) / 0.5
_HALF = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_PREPARED_BY_HALF = ("inception_v3", "googlenet")


def load_weights(network: Network, weights: str, torchvision_name: str | None) -> Preprocessing:
    """Fill a network's backbone; its head is left as it is.

    A first layer for colour images is summed over its colours for grey ones. The backbone's own
    numbers are given up before others are read, so that the memory never holds both: after an error
    the network is of no use.

    Args:
        network: What receives the weights.
        weights: A torchvision weights name, or the path of a state dict or checkpoint.
        torchvision_name: The network's name in torchvision, if it has one.

    Returns:
        How images were prepared for these weights.

    Raises:
        UserError: The weights are unknown, cannot be had, or do not fit.
    """
    own = {key: torch.empty_like(one, device="meta") for key, one in network.state_dict().items()}
    for parameter in network.backbone.parameters():
        parameter.data = parameter.new_empty(0)
    # a name has no folder and no suffix
    if Path(weights).suffix or Path(weights).parent != Path() or Path(weights).exists():
        state, preprocessing = _read_state(network, Path(weights), torchvision_name)
    else:
        state, preprocessing = _torchvision_state(network, weights, torchvision_name)
    _fill(network, state, own, source=weights)
    first = network.first_conv
    if first is not None and first.in_channels == 1 and len(preprocessing.mean) == 3:
        preprocessing = Preprocessing(
            (math.fsum(preprocessing.mean) / 3,),
            (math.fsum(preprocessing.std) / 3,),
            preprocessing.size,
        )
    return preprocessing


def _torchvision_state(
    network: Network, weights: str, torchvision_name: str | None
) -> tuple[dict[str, Tensor], Preprocessing]:
    if torchvision_name is None:
        raise UserError(
            f"torchvision has no weights {weights!r} for {network.title}",
            "give the path of a state dict or checkpoint, or `weights: null`",
        )
    known = models.get_model_weights(torchvision_name)
    if weights not in known.__members__:
        near = difflib.get_close_matches(weights, known.__members__, n=1, cutoff=0)
        raise UserError(
            f"{torchvision_name} has no weights {weights!r} in torchvision",
            f"use one of {', '.join(known.__members__)}"
            + (f" (did you mean {near[0]}?)" if near else "")
            + ", or the path of a file",
        )
    chosen = known[weights]
    file = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(chosen)
    try:
        state = chosen.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"weights {torchvision_name} {weights} are not at {file} and could not be downloaded "
            f"from {chosen.url}: {error}",
            f"download that address elsewhere and save it as {file}",
        ) from error
    except (RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{file} is not a whole file of weights: {error}", "delete it") from error
    renamed = {network.rename_torchvision_key(key): value for key, value in state.items()}
    return renamed, _preprocessing_of(chosen, torchvision_name)


def _preprocessing_of(chosen: models.WeightsEnum, torchvision_name: str) -> Preprocessing:
    transforms = chosen.transforms()
    size = int(transforms.crop_size[0])
    if torchvision_name in _PREPARED_BY_HALF:
        return Preprocessing(_HALF.mean, _HALF.std, size)
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), size)


def _preprocessing_of_file(
    path: Path, network: Network, torchvision_name: str | None
) -> Preprocessing:
    """How torchvision prepares images for the weights of a file, which bears the name of theirs.

    A file of another name is taken for the weights that torchvision would give by default, and one
    of a network that torchvision does not have for weights of ImageNet.
    """
    if torchvision_name is None:
        return Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), network.default_size)
    default = models.get_model_weights(torchvision_name)["DEFAULT"]
    chosen = _weights_of_file(path, torchvision_name) or default
    return _preprocessing_of(chosen, torchvision_name)


def size_of_weights(torchvision_name: str, weights: str | None) -> int | None:
    """Side in pixels of the images that torchvision made weights with.

    Args:
        torchvision_name: A network of torchvision.
        weights: As for `load_weights`; a file is known by its name.

    Returns:
        `None` if the weights, or the network, are none of torchvision's.
    """
    if weights is None or torchvision_name not in models.list_models():
        return None
    named = models.get_model_weights(torchvision_name).__members__.get(weights)
    chosen = named or _weights_of_file(Path(weights), torchvision_name)
    return None if chosen is None else _preprocessing_of(chosen, torchvision_name).size


def _weights_of_file(path: Path, torchvision_name: str) -> models.WeightsEnum | None:
    """Those of torchvision whose name a file bears."""
    known = models.get_model_weights(torchvision_name)
    return next((one for one in known if _file_name(one) == path.name), None)


def _file_name(weights: models.WeightsEnum) -> str:
    """What torchvision calls the file that it downloads."""
    return Path(urllib.parse.urlparse(weights.url).path).name


def _read_state(
    network: Network, path: Path, torchvision_name: str | None
) -> tuple[dict[str, Tensor], Preprocessing]:
    if not path.is_file():
        raise UserError(f"there are no weights at {path}", "check the path after `weights`")
    content = Content(load_checkpoint(path), path)
    prepared = None
    if CHECKPOINT_KEY in content.values:
        content.check_ours()
        prepared = content.values[CHECKPOINT_KEY]["preprocessing"]
    state = content.values.get("state_dict", content.values)
    content.check_state(state)
    if any(key.startswith("network.backbone.") for key in state):
        state = {
            key.removeprefix("network."): value
            for key, value in state.items()
            if key.startswith("network.")
        }
    else:
        state = _without_wrappers(state)
    if not any(key.startswith("backbone.") for key in state):
        state = {network.rename_torchvision_key(key): value for key, value in state.items()}
    if prepared:
        return state, Preprocessing.from_dict(prepared)
    return state, _preprocessing_of_file(path, network, torchvision_name)


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state without the names of modules that hold the whole network.

    Example:
        >>> _without_wrappers({"module.model.conv1.weight": 1, "module.model.fc.bias": 2})
        {'conv1.weight': 1, 'fc.bias': 2}
    """
    first = {key.partition(".")[0] for key in state}
    if len(first) != 1 or first == {"backbone"} or not all("." in key for key in state):
        return state
    return _without_wrappers({key.partition(".")[2]: one for key, one in state.items()})


def _fill(network: Network, state: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """Put the numbers of a state where the network had its own; takes them out of the state."""
    first = network.first_conv
    if first is not None and first.in_channels == 1:
        name = next(name for name, module in network.named_modules() if module is first)
        kernel = state.get(f"{name}.weight")
        if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
            state[f"{name}.weight"] = kernel.sum(1, keepdim=True)
    needed = [key for key in own if key.startswith("backbone.")]
    missing = [key for key in needed if key not in state]
    extra = [key for key in state if key.startswith("backbone.") and key not in own]
    misfits = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in needed
        if key in state and state[key].shape != own[key].shape
    ]
    misfits += [
        f"{key} is {state[key].dtype}, not {own[key].dtype}"
        for key in needed
        if key in state and state[key].is_floating_point() != own[key].is_floating_point()
    ]
    if missing or extra or misfits:
        told = [f"lacks {key}" for key in missing] + [f"has {key}" for key in extra] + misfits
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        raise UserError(
            f"weights {source} do not fit {network.title}: {'; '.join(told[:3])}{more}",
            "choose the architecture, depth, stem and (vit_… alone) image_size of the weights",
        )
    taken: set[int] = set()
    for key, target in network.state_dict(keep_vars=True).items():
        if key.startswith("head.") or key not in state or state[key].shape != own[key].shape:
            continue
        value = state.pop(key).detach()
        if not isinstance(target, nn.Parameter):
            target.copy_(value)
            continue
        # a file may hold one tensor under two names, which are two parameters here
        if not _is_laid_out(value, own[key]) or value.data_ptr() in taken:
            empty = torch.empty_strided(own[key].shape, own[key].stride(), dtype=own[key].dtype)
            value = empty.copy_(value)
        target.data = value
        taken.add(value.data_ptr())


def _is_laid_out(value: Tensor, own: Tensor) -> bool:
    """Whether a tensor can take another's place as it is, and keeps nothing else in memory."""
    same = value.dtype == own.dtype and value.stride() == own.stride()
    return same and value.untyped_storage().nbytes() == value.numel() * value.element_size()


def freeze_all_but_head(network: Network) -> None:
    """Let gradients reach the last layer alone, and put the rest into eval mode."""
    network.requires_grad_(requires_grad=False)
    network.head.requires_grad_(requires_grad=True)
    set_eval_but_head(network)


def set_eval_but_head(network: Network) -> None:
    """Put everything but the head into eval mode; the head keeps its mode."""
    for name, part in network.named_children():
        if name != "head":
            part.eval()


def silence_eval_mode_warning(*, frozen: bool) -> None:
    """Drop Lightning's warning of modules in eval mode, which a frozen backbone should be in."""
    if frozen:
        warnings.filterwarnings("ignore", message="Found .* module.* in eval mode", append=False)


def choose_preprocessing(
    network: Network,
    image_shape: tuple[int, int, int],
    of_data: Preprocessing,
    of_weights: Preprocessing | None,
    image_size: int | None,
) -> Preprocessing:
    """Settle size and normalisation of the images that a network receives.

    Weights bring the constants and the size they were trained with; else the data's own constants
    hold, and images keep their size if the network can take it.

    Raises:
        UserError: `image_size` is one that the network cannot take.
    """
    base = of_weights or of_data
    least, most = network.min_size, network.max_size or math.inf
    if image_size is not None and not least <= image_size <= most:
        limit = f"{least}" if most == math.inf else f"{least} to {most}"
        raise UserError(
            f"{network.title} cannot take images of {image_size}×{image_size} pixels",
            f"the least it can take is {least} (image_size: {limit})",
        )
    height, width = image_shape[1:]
    fits = least <= min(height, width) and max(height, width) <= most
    size = image_size or base.size or (None if fits else network.default_size)
    return Preprocessing(base.mean, base.std, size if (height, width) != (size, size) else None)
