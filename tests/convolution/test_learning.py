import pytest
import torch
from torch import Tensor

from cnn_lightning.convolution import KERNELS, KnownConvolution, LearntConvolution, learn_kernel
from cnn_lightning.errors import UserError


def image() -> Tensor:
    return torch.randint(0, 256, (1, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_descent_finds_every_kernel(name: str) -> None:
    learnt = LearntConvolution((3, 3))
    losses = learn_kernel(learnt, image(), KnownConvolution(name)(image()), num_steps=200)
    torch.testing.assert_close(learnt.kernel, KERNELS[name], rtol=0, atol=1e-3)
    assert len(losses) == 201
    assert losses[-1] < 1e-6 * losses[0]


def test_it_learns_from_the_outputs_alone() -> None:
    learnt = LearntConvolution((3, 3))
    flipped = KnownConvolution(KERNELS["emboss"].flip(0, 1))(image())
    learn_kernel(learnt, image(), flipped)
    torch.testing.assert_close(learnt.kernel.flip(0, 1), KERNELS["emboss"], rtol=0, atol=1e-3)


def test_it_learns_with_stride_dilation_and_padding() -> None:
    settings = {"stride": 2, "padding": 2, "dilation": 2}
    learnt = LearntConvolution((3, 3), padding_mode="reflect", **settings)
    known = KnownConvolution("sobel_y", padding_mode="reflect", **settings)
    learn_kernel(learnt, image(), known(image()), num_steps=400)
    torch.testing.assert_close(learnt.kernel, known.kernel, rtol=0, atol=1e-3)


def test_a_flat_image_teaches_the_sum_of_the_kernel_and_no_more() -> None:
    flat = torch.full((1, 1, 9, 9), 100.0)
    learnt, known = LearntConvolution((3, 3)), KnownConvolution("sharpen")
    losses = learn_kernel(learnt, flat, known(flat))
    assert losses[-1] < 1e-3
    assert float(learnt.kernel.sum()) == pytest.approx(1, abs=1e-4)
    assert (learnt.kernel - known.kernel).abs().max() > 1


def test_the_first_and_last_losses_are_those_of_the_kernels() -> None:
    learnt, outputs = LearntConvolution((3, 3)), KnownConvolution("sobel_x")(image())
    before = (learnt(image()) - outputs).square().mean()
    losses = learn_kernel(learnt, image(), outputs, num_steps=5)
    after = (learnt(image()) - outputs).square().mean()
    torch.testing.assert_close(losses[[0, -1]], torch.stack([before, after]).detach())


def test_it_repeats_bit_for_bit_and_draws_nothing() -> None:
    outputs = KnownConvolution("laplacian")(image())
    first, second = LearntConvolution((3, 3)), LearntConvolution((3, 3))
    losses = learn_kernel(first, image(), outputs, num_steps=20)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(losses, learn_kernel(second, image(), outputs, num_steps=20))
    assert torch.equal(first.kernel, second.kernel)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_no_brightness_makes_the_descent_leap_away(scale: float) -> None:
    images = scale * torch.ones(1, 1, 12, 12)  # every pixel like every other: the steepest there is
    learnt, known = LearntConvolution((7, 7)), KnownConvolution(torch.ones(7, 7))
    losses = learn_kernel(learnt, images, known(images))
    assert losses[-1] < 1e-6 * losses[0]


def test_zeros_teach_nothing() -> None:
    zeros = torch.zeros(1, 1, 9, 9)
    with pytest.raises(UserError, match="zeros teaches no kernel"):
        learn_kernel(LearntConvolution((3, 3)), zeros, KnownConvolution("sobel_x")(zeros))


def test_outputs_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="outputs are"):
        learn_kernel(LearntConvolution((3, 3)), image(), image())
