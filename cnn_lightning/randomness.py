"""The only source of random numbers: every draw is a pure function of a key.

A key is a few plain values such as `("order", seed, epoch)`. Nothing here keeps state, so a run
that is killed and resumed draws what it would have drawn.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# Lightning writes the seed of `seed_everything` here, for the processes that it starts too
_SEED_VARIABLE = "PL_GLOBAL_SEED"
_DEVICE_SEEDERS: dict[str, Callable[[int], None]] = {
    "cuda": torch.cuda.manual_seed_all,
    "xpu": torch.xpu.manual_seed_all,
    "mps": torch.mps.manual_seed,
}


def run_seed() -> int:
    """The seed given to `lightning.seed_everything`, 0 if it was never called."""
    return int(os.environ.get(_SEED_VARIABLE, "0"))


def key_to_seed(*key: int | str) -> int:
    """Hash a key to a seed in 0..2**63 - 1; the same on every machine and in every process.

    Example:
        >>> key_to_seed("order", 0, 1) == key_to_seed("order", 0, 1)
        True
        >>> key_to_seed("order", 0, 1) == key_to_seed("order", 0, 2)
        False
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A new CPU generator for one purpose, seeded by `key`."""
    return torch.Generator().manual_seed(key_to_seed(*key))


def seed_torch(device: torch.device, *key: int | str) -> None:
    """Seed torch's global generators by `key`: the CPU's and, if it is another, that of a device.

    Layers such as dropout draw from these.
    """
    seed = key_to_seed(*key)
    # not torch.manual_seed: for an accelerator that is not in use it writes down the stack of every
    # call, which takes longer than a small network's optimizer
    torch.default_generator.manual_seed(seed)
    if (seed_device := _DEVICE_SEEDERS.get(device.type)) is not None:
        seed_device(seed)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Let what draws from torch's global CPU generator draw by `key`; then it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_to_seed(*key))
        yield


def permutation(length: int, *key: int | str) -> Tensor:
    """A permutation of 0..length-1 as int64 that depends on `key` alone."""
    return torch.randperm(length, generator=generator(*key))


def coin_flips(indices: Tensor, *key: int | str) -> Tensor:
    """A fair coin for each index that depends on the index and `key` alone.

    The lowest bit of SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195) at place `index`,
    which is computed on the device of `indices`.

    Args:
        indices: N int64.
        *key: What all coins depend on.

    Returns:
        N bool.
    """
    state = (indices + 1) * _wrap(0x9E3779B97F4A7C15) + key_to_seed(*key)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        # the mask makes torch's arithmetic shift a logical one
        state = (state ^ ((state >> shift) & (2 ** (64 - shift) - 1))) * _wrap(factor)
    return (state & 1).bool()


def _wrap(number: int) -> int:
    """An unsigned number of 64 bits as the signed one with the same bits."""
    return number - 2**64 if number >= 2**63 else number


def stratified_split(
    labels: Tensor,
    fraction: float,
    *key: int | str,
    class_names: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Split indices in two, each class in the same proportion.

    Args:
        labels: N int64.
        fraction: Share of each class that goes into the second part, 0..1; of a class with at least
            two images one goes at least, and one at least stays.
        *key: What the split depends on, besides the labels.
        class_names: For the message of the error.
        names: What each index stands for, N different ones. With them, an index is ranked by a hash
            of its name and `key`, so that with one more or one less in its class, at most one other
            moves between the parts. Without, all of the class are drawn anew.

    Returns:
        Two sorted int64 tensors of indices: the larger part, the smaller part.

    Raises:
        ValueError: A class has fewer than two images.
    """
    first, second = [], []
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            name = class_names[label] if class_names else str(label)
            raise ValueError(f"class {name} has fewer than two images and cannot be split")
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        if names is None:
            members = members[permutation(len(members), *key, int(label))]
        else:
            ranks = [key_to_seed(*key, names[index]) for index in members.tolist()]
            members = members[torch.tensor(ranks).argsort(stable=True)]
        second.append(members[:count])
        first.append(members[count:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values
