import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnn_lightning.figures import Sheet, to_png
from cnn_lightning.figures.sheet import Place, _font, letter

TEXTS = ["channel 12", "-0.12 … 3.4e-03", "ẬÅgjpq|", "fjord", "$5_a^b", "0←3", "日本", "a\udcffb"]


def trimmed(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = np.nonzero(ink)
    cut: NDArray[np.uint8] = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return cut


@pytest.mark.parametrize("points", [8, 9, 10])
@pytest.mark.parametrize("text", TEXTS)
def test_all_the_ink_of_a_line_is_there(text: str, points: int) -> None:
    roomy = Image.new("L", (400, 200))
    ImageDraw.Draw(roomy).text((100, 100), text, fill=255, font=_font(points), anchor="ls")
    found = 255 - letter(text, points, align="left").pixels
    np.testing.assert_array_equal(trimmed(found), trimmed(np.asarray(roomy)))


@pytest.mark.parametrize("align", ["left", "center", "right"])
def test_lines_stand_below_each_other_and_lose_nothing(align: str) -> None:
    lines = ["channel 12", "-0.1 … 3", "gjpq"]
    ink = [255 - letter(line, 8, align="left").pixels.astype(int) for line in lines]
    words = letter("\n".join(lines), 8, align=align)  # type: ignore[arg-type]
    both = 255 - words.pixels.astype(int)
    assert both.sum() == sum(part.sum() for part in ink)
    assert words.width == max(part.shape[1] for part in ink)
    last = np.nonzero(both[-ink[2].shape[0] :].sum(0))[0]
    at = {"left": last.min(), "center": (last.min() + last.max()) / 2, "right": last.max()}[align]
    expected = {"left": 0, "center": words.width / 2, "right": words.width - 1}[align]
    assert abs(at - expected) <= 1.5


@pytest.mark.parametrize("points", [8, 10])
def test_letters_are_as_large_as_those_of_matplotlib(points: int) -> None:
    text = "Output of backbone.conv1, epoch 12"
    figure = Figure(dpi=100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    extent = figure.text(0, 0, text, fontsize=points).get_window_extent(renderer)
    words = letter(text, points, align="left")
    assert words.width == pytest.approx(extent.width, rel=0.05)
    assert words.height == pytest.approx(extent.height, abs=2)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_no_words_take_no_room(text: str) -> None:
    sheet = Sheet(5, 5)
    sheet.write(letter(text, 8, align="left"), 4, 4)
    assert sheet.texts == []
    assert (sheet.pixels == 255).all()


def test_what_would_leave_the_sheet_is_refused() -> None:
    sheet = Sheet(20, 20)
    for left, top in ((-1, 0), (0, -1), (16, 0), (0, 16)):
        with pytest.raises(ValueError, match="not within a sheet of 20×20"):
            sheet.paste(np.zeros((5, 5, 3), dtype=np.uint8), left, top)
    with pytest.raises(ValueError, match="not within"):
        sheet.write(letter("too long a text", 8, align="left"), 0, 0)


@pytest.mark.parametrize("length", [8, 9, 15, 40, 61, 200])
def test_a_dashed_frame_has_whole_corners_and_gaps_between(length: int) -> None:
    sheet = Sheet(length, length)
    sheet.frame(Place(0, 0, length, length), "black", 3, dashed=True)
    drawn = (sheet.pixels == 0).all(-1)
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert edge[: min(length, 9)].all()
        assert edge[-9:].all()
        runs = [len(run) for run in "".join("x" if on else " " for on in edge).split()]
        if length >= 40:
            assert set(runs) == {9}
            assert len(runs) > 2
    assert not drawn[3:-3, 3:-3].any()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (200, 333)], ids=str)
def test_a_png_holds_the_pixels_bit_for_bit(shape: tuple[int, int]) -> None:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=draws)
    file = to_png(pixels)
    Image.open(io.BytesIO(file)).verify()  # lengths and checksums
    image = Image.open(io.BytesIO(file))
    assert image.mode == "RGB"
    assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), pixels)
