"""Statistics of a data set against direct computations in float64."""

import pytest
import torch
from torch import Tensor

from cnn_lightning.analysis import datasets
from cnn_lightning.analysis.datasets import channel_histograms, histogram_moments, mean_images


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # channels and images that differ, so that none can stand for another
    brightest = torch.randint(60, 256, (shape[0], shape[1], 1, 1), generator=generator)
    return (torch.rand(shape, generator=generator) * brightest).to(torch.uint8)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3×9×7 images five fit, so that most sets end within a batch."""
    monkeypatch.setattr(datasets, "_BATCH_BYTES", 5 * 3 * 9 * 7)


@pytest.mark.parametrize("channels", [1, 3])
def test_moments_are_those_of_the_chosen_values(channels: int) -> None:
    images, chosen = noise(23, channels, 9, 7), torch.arange(1, 23, 2)
    mean, std = histogram_moments(channel_histograms(images, chosen))
    values = images[chosen].double() / 255
    # of float64 sums over 700 values, in another order
    torch.testing.assert_close(mean, values.mean((0, 2, 3)), rtol=0, atol=1e-14)
    torch.testing.assert_close(std, values.std((0, 2, 3), correction=0), rtol=0, atol=1e-14)
    all_values = images.double() / 255
    assert (mean - all_values.mean((0, 2, 3))).abs().max() > 1e-4


def test_histograms_count_every_value_of_the_chosen_images() -> None:
    images, chosen = noise(23, 3, 9, 7), torch.tensor([0, 22, 5, 6, 7, 8, 9])
    counts = channel_histograms(images, chosen)
    assert counts.dtype == torch.int64
    assert counts.sum(1).tolist() == [7 * 9 * 7] * 3
    for channel in range(3):
        for value in (0, 1, 100, 255):
            assert counts[channel, value] == (images[chosen, channel] == value).sum()


def test_a_constant_has_no_deviation() -> None:
    images = torch.full((7, 1, 4, 4), 51, dtype=torch.uint8)
    mean, std = histogram_moments(channel_histograms(images, torch.arange(7)))
    assert mean.tolist() == [pytest.approx(0.2, abs=1e-15)]
    assert std.tolist() == [pytest.approx(0, abs=1e-15)]


def test_mean_images_are_those_of_each_group() -> None:
    images = noise(23, 3, 9, 7)
    groups = [torch.tensor([4]), torch.arange(12), torch.arange(0, 23, 2)]
    means = mean_images(images, groups)
    assert means.dtype == torch.float32
    for mean, group in zip(means, groups, strict=True):
        torch.testing.assert_close(mean, images[group].double().mean(0).float(), rtol=0, atol=0)


def test_a_group_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        mean_images(noise(3, 1, 4, 4), [torch.arange(3), torch.arange(0)])
