import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnn_lightning.convolution import (
    KERNELS,
    AveragePooling,
    KnownConvolution,
    LearntConvolution,
    MaxPooling,
    Operation,
    PaddingMode,
    TransposedConvolution,
)
from cnn_lightning.errors import UserError

KERNEL = torch.tensor([[1.0, -2, 3], [0.5, 0, 7]])


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator).float()


LAYERS: dict[str, Operation] = {
    **{
        f"convolution {mode}": KnownConvolution(
            KERNEL, stride=2, padding=3, dilation=2, padding_mode=mode
        )
        for mode in get_args(PaddingMode)
    },
    "convolution": KnownConvolution("emboss"),
    "learnt": LearntConvolution((2, 4), padding=1),
    "max pooling": MaxPooling(3, stride=2, padding=1),
    "average pooling": AveragePooling(3, padding=1),
    "transposed": TransposedConvolution(KERNEL, stride=2, padding=1, output_padding=1),
    "transposed with gaps": TransposedConvolution(KERNEL, stride=4),
    "transposed and dilated": TransposedConvolution(KERNEL, dilation=3, padding=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_value_worked_out_is_the_one_that_the_layer_gives(name: str) -> None:
    layer, channel = LAYERS[name], noise(7, 8)
    with torch.no_grad():
        output = layer(channel[None, None])[0, 0]
    assert tuple(output.shape) == layer.output_size(7, 8)
    for row, column in np.ndindex(*output.shape):
        result = layer.work_out(channel, row, column).result
        assert result == pytest.approx(float(output[row, column]), rel=1e-5, abs=1e-3)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from(get_args(PaddingMode)),
    st.data(),
)
def test_any_value_of_any_convolution_is_worked_out_right(
    rows: int,
    columns: int,
    stride: int,
    padding: int,
    dilation: int,
    mode: PaddingMode,
    data: st.DataObject,
) -> None:
    kernel = noise(rows, columns) - 128
    layer = KnownConvolution(
        kernel, stride=stride, padding=padding, dilation=dilation, padding_mode=mode
    )
    channel = noise(10, 11)
    output = layer(channel[None, None])[0, 0]
    row = data.draw(st.integers(0, output.shape[0] - 1))
    column = data.draw(st.integers(0, output.shape[1] - 1))
    worked_out = layer.work_out(channel, row, column)
    assert worked_out.result == pytest.approx(float(output[row, column]), rel=1e-5, abs=0.1)
    for (i, line), (j, place) in itertools.product(
        enumerate(worked_out.rows), enumerate(worked_out.columns)
    ):
        if 0 <= line < 10 and 0 <= place < 11:
            assert worked_out.values[i, j] == channel[line, place]


@pytest.mark.parametrize(
    ("mode", "name"),
    [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")],
)
def test_padding_is_worth_what_numpy_puts_there(mode: PaddingMode, name: str) -> None:
    channel = noise(5, 6)
    layer = KnownConvolution(torch.ones(5, 5), padding=3, padding_mode=mode)
    padded = np.pad(channel.numpy(), 3, mode=name)  # type: ignore[call-overload]  # a plain string
    np.testing.assert_array_equal(layer.pad(channel[None, None])[0, 0].numpy(), padded)
    np.testing.assert_array_equal(layer.work_out(channel, 0, 0).values.numpy(), padded[:5, :5])
    assert layer.work_out(channel, 0, 0).rows == [-3, -2, -1, 0, 1]


@pytest.mark.parametrize("name", LAYERS)
def test_every_channel_of_every_image_is_worked_on_alone(name: str) -> None:
    layer, images = LAYERS[name], noise(2, 3, 7, 8)
    with torch.no_grad():
        together = layer(images)
        for image, channel in itertools.product(range(2), range(3)):
            alone = layer(images[image, channel][None, None])[0, 0]
            torch.testing.assert_close(together[image, channel], alone)


def test_pooling_against_loops() -> None:
    channel = noise(6, 9)
    largest, mean = MaxPooling(3)(channel[None, None]), AveragePooling(3)(channel[None, None])
    for row, column in itertools.product(range(2), range(3)):
        window = [
            float(channel[3 * row + i, 3 * column + j])
            for i, j in itertools.product(range(3), range(3))
        ]
        assert largest[0, 0, row, column] == max(window)
        assert float(mean[0, 0, row, column]) == pytest.approx(sum(window) / 9)


def test_a_transposed_convolution_adds_up_stamps() -> None:
    channel, stride, dilation = noise(3, 4), 2, 3
    output = TransposedConvolution(KERNEL, stride=stride, dilation=dilation)(channel[None, None])
    expected = torch.zeros(2 * stride + dilation + 1, 3 * stride + 2 * dilation + 1)
    for row, column in np.ndindex(3, 4):
        for i, j in np.ndindex(2, 3):
            place = row * stride + i * dilation, column * stride + j * dilation
            expected[place] += channel[row, column] * KERNEL[i, j]
    torch.testing.assert_close(output[0, 0], expected)


def test_a_place_that_no_stamp_reaches_is_zero() -> None:
    worked_out = LAYERS["transposed with gaps"].work_out(noise(7, 8), 2, 0)
    assert worked_out.rows == []
    assert worked_out.result == 0


def test_max_pooling_never_takes_the_padding_and_average_pooling_counts_it() -> None:
    image = torch.full((1, 1, 4, 4), -8.0)
    assert (MaxPooling(2, padding=1)(image) == -8).all()
    assert AveragePooling(2, padding=1)(image)[0, 0, 0, 0] == -2


def test_a_known_kernel_is_not_trained_and_a_learnt_one_is() -> None:
    assert not any(weight.requires_grad for weight in KnownConvolution("sobel_x").parameters())
    learnt = LearntConvolution((3, 3))
    assert [weight.requires_grad for weight in learnt.parameters()] == [True]
    assert torch.equal(learnt.kernel, LearntConvolution((3, 3)).kernel)
    assert all(not torch.equal(learnt.kernel, kernel) for kernel in KERNELS.values())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (KnownConvolution(torch.ones(6, 1), padding=0), "window of 6 does not fit 5 pixels"),
        (KnownConvolution("sobel_x", dilation=3), "spread over 7 by dilation 3"),
        (KnownConvolution("sobel_x", padding=5, padding_mode="reflect"), "use at most 4"),
        (KnownConvolution("sobel_x", padding=6, padding_mode="circular"), "use at most 5"),
        (MaxPooling(6), "does not fit"),
        (TransposedConvolution("sobel_x", padding=4), "cuts the whole output of 7 off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_the_image_is_refused(layer: Operation, message: str) -> None:
    with pytest.raises(UserError, match=message):
        layer(noise(1, 1, 5, 5))


def test_the_largest_reflection_and_turn_are_not_refused() -> None:
    for padding, mode in ((4, "reflect"), (5, "circular"), (9, "replicate")):
        layer = KnownConvolution("sobel_x", padding=padding, padding_mode=mode)  # type: ignore[arg-type]  # the loop widens it
        assert layer(noise(1, 1, 5, 5)).shape[2] == 3 + 2 * padding


def test_numbers_too_small_are_refused_by_name() -> None:
    for name, number in (("stride", 0), ("padding", -1), ("dilation", 0)):
        with pytest.raises(UserError, match=f"{name} {number}: too small"):
            KnownConvolution("sobel_x", **{name: number})  # type: ignore[arg-type]  # all are int
    with pytest.raises(UserError, match="window 0: too small"):
        MaxPooling(0, stride=1)
    with pytest.raises(UserError, match="more than half of the window of 3"):
        AveragePooling(3, padding=2)
    with pytest.raises(UserError, match="output_padding 2 is not below"):
        TransposedConvolution("sobel_x", stride=2, output_padding=2)


@pytest.mark.parametrize("place", [(5, 0), (0, 6), (-1, 0)])
def test_a_place_outside_the_output_is_refused(place: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="outside the output of 5×6"):
        KnownConvolution("sobel_x").work_out(noise(7, 8), *place)
    with pytest.raises(UserError, match="outside the output"):
        LAYERS["transposed"].work_out(noise(7, 8), -1, 0)
