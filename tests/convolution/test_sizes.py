"""Sizes against counting, and against what torch's own layers give, for random settings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnn_lightning.convolution import (
    AveragePooling,
    KnownConvolution,
    MaxPooling,
    TransposedConvolution,
    convolution_size,
    transposed_size,
)
from cnn_lightning.errors import UserError

often = settings(max_examples=200, deadline=None, derandomize=True)
sides = st.integers(1, 17)
sizes = st.integers(1, 5)
strides = st.integers(1, 4)
paddings = st.integers(0, 4)
dilations = st.integers(1, 4)


@often
@given(sides, sides, sizes, sizes, strides, paddings, dilations)
def test_a_convolution_is_as_large_as_the_formula_says_or_refused(
    height: int, width: int, rows: int, columns: int, stride: int, padding: int, dilation: int
) -> None:
    layer = KnownConvolution(
        torch.ones(rows, columns), stride=stride, padding=padding, dilation=dilation
    )
    reference = nn.Conv2d(1, 1, (rows, columns), stride, padding, dilation)
    images = torch.zeros(1, 1, height, width)
    try:
        expected = tuple(reference(images).shape[2:])
    except RuntimeError:
        with pytest.raises(UserError, match="does not fit"):
            layer(images)
        return
    assert tuple(layer(images).shape[2:]) == layer.output_size(height, width) == expected


@often
@given(sides, sizes, strides, paddings, dilations)
def test_the_size_is_the_number_of_places_where_the_window_fits(
    side: int, size: int, stride: int, padding: int, dilation: int
) -> None:
    last = side + 2 * padding - 1
    starts = range(0, side + 2 * padding, stride)
    places = sum(start + dilation * (size - 1) <= last for start in starts)
    if places == 0:
        with pytest.raises(UserError, match="does not fit"):
            convolution_size(side, size, stride=stride, padding=padding, dilation=dilation)
        return
    counted = convolution_size(side, size, stride=stride, padding=padding, dilation=dilation)
    assert counted == places


@often
@given(sides, sides, sizes, strides, st.integers(0, 2), st.booleans())
def test_a_pooling_is_as_large_as_the_formula_says_or_refused(
    height: int, width: int, size: int, stride: int, padding: int, largest: bool
) -> None:
    images = torch.zeros(1, 1, height, width)
    pooling = MaxPooling if largest else AveragePooling
    reference = nn.MaxPool2d if largest else nn.AvgPool2d
    try:
        expected = tuple(reference(size, stride, padding)(images).shape[2:])
    except RuntimeError:
        with pytest.raises(UserError, match=r"does not fit|more than half"):
            pooling(size, stride=stride, padding=padding)(images)
        return
    layer = pooling(size, stride=stride, padding=padding)
    assert tuple(layer(images).shape[2:]) == layer.output_size(height, width) == expected


@often
@given(sides, sides, sizes, sizes, strides, paddings, dilations, st.integers(0, 3))
def test_a_transposed_convolution_is_as_large_as_the_formula_says_or_refused(
    height: int,
    width: int,
    rows: int,
    columns: int,
    stride: int,
    padding: int,
    dilation: int,
    output_padding: int,
) -> None:
    kernel = torch.ones(rows, columns)
    images = torch.zeros(1, 1, height, width)
    reference = nn.ConvTranspose2d(
        1, 1, (rows, columns), stride, padding, output_padding, dilation=dilation
    )
    keywords = {"stride": stride, "padding": padding, "dilation": dilation}
    try:
        expected = tuple(reference(images).shape[2:])
    except RuntimeError:
        expected = (0,)
    if 0 in expected:
        with pytest.raises(UserError, match=r"cuts the whole output|is not below the larger"):
            TransposedConvolution(kernel, **keywords, output_padding=output_padding)(images)
        return
    layer = TransposedConvolution(kernel, **keywords, output_padding=output_padding)
    assert tuple(layer(images).shape[2:]) == layer.output_size(height, width) == expected


@often
@given(sides, sizes, strides, paddings, dilations)
def test_a_transposed_convolution_brings_back_the_size_that_a_convolution_took_away(
    side: int, size: int, stride: int, padding: int, dilation: int
) -> None:
    extent = dilation * (size - 1) + 1
    if extent > side + 2 * padding:
        return
    small = convolution_size(side, size, stride=stride, padding=padding, dilation=dilation)
    lost = (side + 2 * padding - extent) % stride
    restored = transposed_size(
        small, size, stride=stride, padding=padding, dilation=dilation, output_padding=lost
    )
    assert restored == side


@often
@given(sides, sizes, strides, st.integers(0, 4), dilations, st.integers(0, 3))
def test_the_formula_with_numbers_comes_to_the_size(
    side: int, size: int, stride: int, padding: int, dilation: int, output_padding: int
) -> None:
    layers = (
        lambda: KnownConvolution([[1] * size] * size, stride=stride, dilation=dilation),
        lambda: KnownConvolution([[1] * size] * size, stride=stride, padding=padding),
        lambda: MaxPooling(size, stride=stride, padding=padding),
        lambda: TransposedConvolution(
            [[1] * size] * size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
        ),
    )
    for build in layers:
        try:
            layer = build()
            text = layer.size_formula(side, size)
        except UserError:
            continue
        terms, result = text.split(" = ")
        terms = terms.replace("·", "*").replace("⌊", "(").replace("⌋", ")").replace("/", "//")
        assert eval(terms) == int(result) == layer.output_side(side, size)
