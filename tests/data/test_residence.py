"""Images that live on the device make the same batches as images that do not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cnn_lightning.data import ImageLoader, Sharding, residence
from cnn_lightning.data.residence import Residence

# holds shapes and no values, as far away as a GPU
META = torch.device("meta")
GPU = torch.device("cuda", 0)
IMAGES = torch.arange(20 * 3 * 4 * 4).reshape(20, 3, 4, 4).to(torch.uint8)


def loader(move: Callable[[Tensor], Tensor], **kwargs: Any) -> ImageLoader:
    indices = torch.arange(1, 20)
    return ImageLoader(
        IMAGES, torch.arange(20), indices, Sharding(19, 4, least=2), move=move, **kwargs
    )


@pytest.mark.parametrize("seed", [None, 3])
def test_same_batches_wherever_the_images_live(seed: int | None) -> None:
    plain = [*loader(lambda tensor: tensor, seed=seed)]
    moved = [*loader(lambda tensor: tensor.clone(), seed=seed)]
    assert len(plain) == 5
    for one, other in zip(plain, moved, strict=True):
        assert all(map(torch.equal, one[:3], other[:3]))
        assert torch.equal(other.images, IMAGES[other.indices])


class Crossings(TorchDispatchMode):
    """Counts what is copied from the CPU to the far device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        inputs = [arg for arg in args if isinstance(arg, Tensor)]
        if isinstance(result, Tensor) and result.device == META:
            self.count += any(one.device.type == "cpu" for one in inputs)
        return result


def test_no_batch_crosses_the_bus_once_the_images_are_there() -> None:
    home = Residence(on_device=True)
    batches = iter(loader(lambda tensor: home.place(tensor, META), seed=1))
    with Crossings() as crossings:
        first = next(batches)
        assert crossings.count == 3  # images, order and labels of the whole epoch
        rest = [*batches]
        assert crossings.count == 3
    for batch in [first, *rest]:
        assert all(tensor.device == META for tensor in batch[:3])
    assert [len(batch.images) for batch in [first, *rest]] == [4, 4, 4, 4, 3]


def test_images_are_moved_once() -> None:
    home = Residence(on_device=True)
    assert home.place(IMAGES, META) is home.place(IMAGES, META)
    assert home.place(IMAGES, torch.device("cpu")) is IMAGES


@pytest.mark.parametrize(
    ("on_device", "free", "expected"),
    [
        (None, 4 * IMAGES.numel(), True),
        (None, 4 * IMAGES.numel() - 1, False),
        (True, 0, True),
        (False, 10**12, False),
    ],
)
def test_a_quarter_of_the_free_memory_must_hold_them(
    on_device: bool | None,
    free: int,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moved: list[Any] = []
    monkeypatch.setattr(residence, "_free_bytes", lambda device: free)
    monkeypatch.setattr(Tensor, "to", lambda tensor, device: moved.append(device) or tensor)
    home = Residence(on_device=on_device)
    home.place(IMAGES, GPU)
    home.place(IMAGES, GPU)
    assert moved == ([GPU] if expected else [])
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert ("in the memory of cuda:0" in told) == expected
    assert "20 images" in told


def test_other_devices_hold_them_only_if_asked() -> None:
    assert Residence(on_device=None).place(IMAGES, META) is IMAGES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_are_the_same() -> None:
    home = Residence(on_device=None)
    far = [*loader(lambda tensor: home.place(tensor, GPU), seed=2)]
    near = [*loader(lambda tensor: tensor, seed=2)]
    for one, other in zip(near, far, strict=True):
        assert other.images.is_cuda
        assert torch.equal(one.images, other.images.cpu())
        assert torch.equal(one.indices, other.indices.cpu())
