"""The layout in memory is the network's own or the one asked for, in weights and images alike."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from cnn_lightning import LeNet, ShapesDataModule
from cnn_lightning.networks import LeNet5


def trained(tmp_path: Path, **kwargs: Any) -> tuple[LeNet, torch.Tensor, Path]:
    """A classifier after three steps, the images of its last step, and its checkpoint."""
    torch.manual_seed(0)
    classifier = LeNet(10, activation="relu", **kwargs)
    seen = []
    classifier.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    trainer = L.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(classifier, ShapesDataModule(num_images=60, num_test=20, batch_size=16))
    path = tmp_path / "some.ckpt"
    trainer.save_checkpoint(path)
    return classifier, seen[-1], path


def is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


@pytest.mark.parametrize(
    ("own", "layout", "expected"),
    [
        (True, None, True),
        (False, None, False),
        (True, "contiguous", False),
        (False, "channels_last", True),
    ],
)
@pytest.mark.filterwarnings("default")
def test_weights_and_images_have_the_layout(
    own: bool, layout: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LeNet5, "channels_last", own)
    classifier, images, path = trained(tmp_path, layout=layout)
    assert is_channels_last(images) == expected
    assert is_channels_last(next(p for p in classifier.parameters() if p.ndim == 4)) == expected
    again = LeNet.load_from_checkpoint(path)
    assert again.preprocessing is not None
    assert again.preprocessing.channels_last == again.channels_last == expected
    pictures = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(
        again.predict_images(pictures).probabilities,
        classifier.predict_images(pictures).probabilities,
    )


@pytest.mark.filterwarnings("default")
def test_both_layouts_learn_the_same(tmp_path: Path) -> None:
    one, _, _ = trained(tmp_path, layout="channels_last")
    other, _, _ = trained(tmp_path, layout="contiguous")
    for (name, value), same in zip(one.named_parameters(), other.parameters(), strict=True):
        # the order of sums differs
        assert torch.allclose(value, same, rtol=1e-4, atol=1e-5), name
