import functools
import itertools
import re

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from texts import assert_apart
from torch import Tensor

from cnn_lightning.convolution import (
    AveragePooling,
    KnownConvolution,
    MaxPooling,
    Operation,
    TransposedConvolution,
)
from cnn_lightning.figures import OperationExample, draw_operation, to_array, to_png
from cnn_lightning.figures.numbers import MINUS, spell
from cnn_lightning.figures.operation_example import OperationName, arithmetic

SEVEN = torch.arange(49.0).reshape(7, 7) * -1.2345
CASES: dict[str, tuple[OperationName, Operation, tuple[int, ...]]] = {
    "digit": ("convolution", KnownConvolution("sobel_x"), (1, 28, 28)),
    "colour": ("convolution", KnownConvolution("gaussian", padding=1), (3, 64, 55)),
    "largest": ("convolution", KnownConvolution(SEVEN, padding=3), (3, 64, 64)),
    "dilated": ("convolution", KnownConvolution("box_blur", dilation=4, stride=2), (3, 32, 32)),
    "scattered": (
        "convolution",
        KnownConvolution(SEVEN, padding=100, stride=100, dilation=12, padding_mode="replicate"),
        (1, 28, 28),
    ),
    "far outside": (
        "convolution",
        KnownConvolution("sharpen", padding=9, padding_mode="circular"),
        (1, 12, 9),
    ),
    "one line": ("convolution", KnownConvolution([[1e6, -1e6, 1e-7]]), (3, 1, 64)),
    "one number": ("convolution", KnownConvolution([[-2]]), (1, 8, 8)),
    "max pooling": ("max_pooling", MaxPooling(3, padding=1), (1, 28, 28)),
    "average pooling": ("average_pooling", AveragePooling(7), (3, 32, 32)),
    "transposed": ("transposed", TransposedConvolution("emboss", stride=2), (3, 64, 64)),
    "no pixel": ("transposed", TransposedConvolution("identity", stride=5), (1, 9, 9)),
    "too many pixels": ("transposed", TransposedConvolution("gaussian", stride=7), (3, 64, 48)),
}


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def example(case: str, place: tuple[int, int] | None = None) -> OperationExample:
    operation, layer, shape = CASES[case]
    image, channel = noise(*shape), shape[0] - 1
    pixels = image.float()
    output = layer(pixels[None])[0, channel]
    if place is None:
        place = (4, 4) if case == "no pixel" else (0, output.shape[1] - 1)
    return OperationExample(
        operation=operation,
        title=f"{operation} of {case}",
        image=image,
        channel=channel,
        padded=layer.pad(pixels[None, channel : channel + 1])[0, 0],
        kernel=layer.kernel,
        output=output,
        place=place,
        **layer.work_out(pixels[channel], *place)._asdict(),
        formulas=(
            layer.formula,
            layer.size_formula(shape[1], layer.window[0]),
            layer.size_formula(shape[2], layer.window[1]),
        ),
    )


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def output_axes(figure: Figure, shown: OperationExample) -> Axes:
    """Where the output is drawn: the last picture of its shape, and as large as one."""
    found = [
        axes
        for axes in figure.axes
        for picture in axes.get_images()
        if np.shape(picture.get_array()) == tuple(shown.output.shape) and not axes.texts
    ]
    return found[-1]


def output_picture(figure: Figure, shown: OperationExample) -> np.ndarray:
    return np.asarray(output_axes(figure, shown).get_images()[0].get_array())


@functools.cache
def drawn(case: str) -> tuple[OperationExample, Figure]:
    """To be looked at alone."""
    return example(case), draw_operation(example(case))


@pytest.mark.parametrize("case", CASES)
def test_nothing_overlaps_or_leaves_the_figure_and_the_file_is_small(case: str) -> None:
    _, figure = drawn(case)
    assert len(to_png(figure)) < 1_000_000
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    texts = [text for text in figure.texts if text.get_text()]
    texts += [text for axes in figure.axes for text in axes.get_yticklabels() if text.get_text()]
    boxes += [text.get_window_extent(renderer) for text in texts]
    assert_apart(figure, boxes)
    for axes in figure.axes:  # the numbers in their cells
        cells = [text.get_window_extent(renderer) for text in axes.texts]
        for one, other in itertools.combinations(cells, 2):
            assert not one.overlaps(other)


@pytest.mark.parametrize("case", CASES)
def test_the_value_worked_out_is_the_one_drawn(case: str) -> None:
    shown, figure = drawn(case)
    assert output_picture(figure, shown)[shown.place] == pytest.approx(
        shown.result, rel=1e-5, abs=1e-3
    )
    assert any(text.endswith(f": {spell(shown.result)}") for text in texts_of(figure))


@pytest.mark.parametrize("case", ["digit", "colour", "dilated", "average pooling", "transposed"])
def test_the_arithmetic_comes_to_the_result(case: str) -> None:
    shown = example(case, place=(2, 3))
    text = " ".join(arithmetic(shown)).replace("\xa0", " ").replace(MINUS, "-")
    terms, result = re.split(" [=≈] ", text)
    assert eval(terms.replace("×", "*")) == pytest.approx(float(result), rel=1e-4)
    assert float(result) == pytest.approx(shown.result, rel=1e-5)
    assert float(result) == pytest.approx(float(shown.output[2, 3]), rel=1e-5, abs=1e-3)


def test_only_what_is_exact_is_called_equal() -> None:
    assert "=" in arithmetic(example("digit"))[-1]
    assert "≈" in arithmetic(example("dilated", place=(0, 1)))[-1]
    assert arithmetic(example("no pixel")) == ["no input pixel reaches this place: 0"]
    assert arithmetic(example("max pooling", place=(0, 0)))[0].startswith(
        f"the largest of {MINUS}∞, {MINUS}∞"
    )


def test_padding_is_written_as_what_it_is_worth() -> None:
    shown = example("far outside", place=(0, 0))
    assert shown.rows == [-9, -8, -7]
    grids = [axes for axes in draw_operation(shown).axes if len(axes.texts) == 9]
    opposite = shown.image[0, 3:6][:, [0, 1, 2]]  # 12 rows and 9 columns round
    assert [text.get_text() for text in grids[1].texts] == [
        str(number) for number in opposite.flatten().tolist()
    ]


def test_the_patch_and_the_output_pixel_are_framed() -> None:
    figure = draw_operation(example("digit", place=(5, 7)))
    framed = [
        {tuple(patch.get_bbox().get_points().mean(0).round(6)) for patch in axes.patches}
        for axes in figure.axes
        if axes.patches
    ]
    assert framed == [{(8, 6)}, {(7, 5)}]  # the centres: column, row


def test_scattered_pixels_are_framed_one_by_one() -> None:
    figure = draw_operation(example("dilated", place=(2, 2)))
    assert sorted(len(axes.patches) for axes in figure.axes if axes.patches) == [2, 18]


def test_signed_outputs_are_centred_on_white_and_others_are_grey() -> None:
    for case, signed in (("digit", True), ("average pooling", False)):
        shown = example(case)
        picture = output_axes(draw_operation(shown), shown).get_images()[0]
        low, high = picture.get_clim()
        assert (low == -high) == signed
        assert (picture.get_cmap().name == "gray") != signed


def test_sizes_and_formulas_are_written() -> None:
    texts = texts_of(draw_operation(example("dilated")))
    formula = "output height = ⌊(32 + 2·0 - 4·(3 - 1) - 1) / 2⌋ + 1 = 12"
    assert formula.replace("-", MINUS) in texts
    assert "its blue channel, 32×32" in texts
    assert "output of the blue channel, 12×12" in texts
    assert any("cross-correlation" in text for text in texts)


def test_a_window_too_large_to_read_is_refused() -> None:
    shown = example("digit")
    large = OperationExample(**{**vars(shown), "values": torch.zeros(8, 2)})
    with pytest.raises(ValueError, match="more than can be read"):
        draw_operation(large)


def test_drawing_repeats_bit_for_bit() -> None:
    one, two = (to_array(draw_operation(example("colour"))) for _ in range(2))
    assert torch.equal(one, two)
