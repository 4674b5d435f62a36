import numpy as np
import pytest
import torch
from scipy import ndimage

from cnn_lightning.convolution import KERNELS, KnownConvolution, PaddingMode, as_kernel
from cnn_lightning.errors import UserError

# what scipy calls the ways to pad
MODES: dict[PaddingMode, str] = {
    "zeros": "constant",
    "reflect": "mirror",
    "replicate": "nearest",
    "circular": "wrap",
}
IMAGE = torch.randint(0, 256, (1, 1, 9, 12), generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_gives_the_correlation_of_scipy(name: str, mode: PaddingMode) -> None:
    output = KnownConvolution(name, padding=1, padding_mode=mode)(IMAGE)[0, 0]
    kernel = KERNELS[name].double().numpy()
    expected = ndimage.correlate(IMAGE[0, 0].double().numpy(), kernel, mode=MODES[mode])
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", ["sobel_x", "sobel_y", "emboss"])
def test_the_kernel_is_not_flipped(name: str) -> None:
    output = KnownConvolution(name, padding=1)(IMAGE)[0, 0]
    kernel = KERNELS[name].double().numpy()
    flipped = ndimage.convolve(IMAGE[0, 0].double().numpy(), kernel, mode="constant")
    assert np.abs(output.numpy() - flipped).max() > 100


def test_kernels_are_what_scipy_calls_by_the_same_names() -> None:
    image = IMAGE[0, 0].double().numpy()
    references = {
        "identity": image,
        "box_blur": ndimage.uniform_filter(image, 3, mode="mirror"),
        "sobel_x": ndimage.sobel(image, axis=1, mode="mirror"),
        "sobel_y": ndimage.sobel(image, axis=0, mode="mirror"),
        "laplacian": ndimage.laplace(image, mode="mirror"),
        "sharpen": image - ndimage.laplace(image, mode="mirror"),
    }
    for name, expected in references.items():
        output = KnownConvolution(name, padding=1, padding_mode="reflect")(IMAGE)[0, 0]
        np.testing.assert_allclose(output.numpy(), expected, rtol=1e-6, atol=1e-4)


def test_the_gaussian_is_two_averages_of_neighbours_down_and_across() -> None:
    line = np.convolve([0.5, 0.5], [0.5, 0.5])
    np.testing.assert_array_equal(KERNELS["gaussian"].numpy(), np.outer(line, line))


def test_what_sums_to_one_keeps_the_brightness_and_what_sums_to_zero_finds_edges() -> None:
    sums = {name: round(float(kernel.sum()), 6) for name, kernel in KERNELS.items()}
    assert {name for name, total in sums.items() if total == 0} == {
        "sobel_x",
        "sobel_y",
        "laplacian",
    }
    assert all(total in (0, 1) for total in sums.values())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="there is no kernel 'sobell'") as caught:
        as_kernel("sobell")
    assert all(name in caught.value.remedy for name in KERNELS)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([[1, 2], [3]], "rows of the kernel have 2, 1 numbers"),
        ([[]], "no matrix"),
        ([], "no matrix"),
        (torch.zeros(3), "no matrix"),
        ([1, 2, 3], "no matrix"),
        ([[1, 2], 3], "rows of the kernel have 2, 1 numbers"),
        ([[1, float("nan")]], "not finite"),
        ([[1e39]], "not finite"),
    ],
)
def test_what_is_no_finite_matrix_is_refused(numbers: list[list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_kernel(numbers)


def test_a_layer_has_a_kernel_of_its_own() -> None:
    given = torch.ones(2, 2)
    layer = KnownConvolution(given)
    given.zero_()
    assert layer.kernel.sum() == 4
    KnownConvolution("identity").kernel.zero_()
    assert KERNELS["identity"].sum() == 1
