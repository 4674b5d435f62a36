import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from cnn_lightning.cli import main
from cnn_lightning.commands import convolve
from cnn_lightning.convolution import KERNELS
from cnn_lightning.figures import OperationExample
from cnn_lightning.figures.style import new_figure


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    return tmp_path / "grey.png"


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    return tmp_path / "colour.png"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[OperationExample]:
    """What the command would draw, without the time that drawing takes."""
    examples: list[OperationExample] = []

    def keep(example: OperationExample) -> Figure:
        examples.append(example)
        return new_figure(10, 10)

    monkeypatch.setattr(convolve, "draw_operation", keep)
    return examples


def run(tmp_path: Path, *argv: str | Path) -> None:
    assert main(["convolve", *map(str, argv), "--output", str(tmp_path / "figures")]) == 0


def refuse(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert main(["convolve", *map(str, argv)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 3, message
    return message


@pytest.mark.parametrize("sample", ["digit", "shape"])
def test_without_an_image_a_sample_is_drawn(
    sample: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "--sample", sample)
    path = tmp_path / f"figures/{sample}_sobel_x.png"
    assert capsys.readouterr().out.splitlines() == [str(path)]
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", KERNELS)
def test_the_output_is_the_correlation_of_scipy_and_its_extreme_is_worked_out(
    name: str, grey: Path, tmp_path: Path, shown: list[OperationExample]
) -> None:
    run(tmp_path, grey, "--kernel", name)
    (example,) = shown
    pixels = np.asarray(Image.open(grey)).astype(float)
    expected = ndimage.correlate(pixels, KERNELS[name].double().numpy())[1:-1, 1:-1]
    np.testing.assert_allclose(example.output.numpy(), expected, rtol=1e-6, atol=1e-3)
    row, column = example.place
    assert example.result == pytest.approx(float(example.output[row, column]), rel=1e-6)
    assert abs(example.result) == pytest.approx(np.abs(expected).max())


@pytest.mark.parametrize("text", ["0 1 / -1 2.5", "0,1;-1,2.5", "0 1;-1 , 2.5", " 0  1 /-1 2.5 "])
def test_numbers_are_read_in_any_spelling(
    text: str, grey: Path, tmp_path: Path, shown: list[OperationExample]
) -> None:
    run(tmp_path, grey, "--values", text)
    assert shown[0].kernel is not None
    assert shown[0].kernel.tolist() == [[0, 1], [-1, 2.5]]
    assert (tmp_path / "figures/grey_values.png").exists()


def test_numbers_may_begin_with_a_minus(grey: Path, tmp_path: Path) -> None:
    run(tmp_path, grey, "--values", "-1 0 1 / -2 0 2 / -1 0 1")
    run(tmp_path, grey, "--values=-1;2")


@pytest.mark.parametrize(
    ("argv", "size", "stem"),
    [
        (["--stride", "2", "--padding", "3", "--dilation", "2"], (7, 9), "sobel_x"),
        (["--operation", "max_pooling"], (6, 8), "max_pooling"),
        (["--operation", "average_pooling", "--window", "3"], (4, 5), "average_pooling"),
        (["--operation", "transposed"], (25, 33), "transposed_sobel_x"),
        (["--operation", "transposed", "--output_padding", "1"], (26, 34), "transposed_sobel_x"),
    ],
)
def test_every_operation_takes_its_settings(
    argv: list[str],
    size: tuple[int, int],
    stem: str,
    grey: Path,
    tmp_path: Path,
    shown: list[OperationExample],
) -> None:
    run(tmp_path, grey, *argv)
    assert tuple(shown[0].output.shape) == size
    for side, formula in zip(size, shown[0].formulas[1:], strict=True):
        assert formula.endswith(f" = {side}")
    assert (tmp_path / f"figures/grey_{stem}.png").exists()


def test_the_asked_for_place_and_channel_are_worked_out(
    colour: Path, tmp_path: Path, shown: list[OperationExample]
) -> None:
    run(tmp_path, colour, "--at", "3", "5", "--channel", "green")
    assert (shown[0].place, shown[0].channel, shown[0].channel_name) == ((3, 5), 1, "green")
    assert torch.equal(shown[0].values, shown[0].image[1, 3:6, 5:8].double())


def test_the_channel_is_the_one_with_the_extreme_value(
    tmp_path: Path, shown: list[OperationExample]
) -> None:
    pixels = np.full((9, 9, 3), 100, dtype=np.uint8)
    pixels[4, 4] = (120, 10, 110)
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    run(tmp_path, tmp_path / "spot.png", "--kernel", "laplacian")
    run(tmp_path, tmp_path / "spot.png", "--kernel", "laplacian", "--at", "3", "3")
    assert [(example.channel, example.place) for example in shown] == [(1, (3, 3)), (1, (3, 3))]
    assert shown[0].result == 4 * 90


def test_large_images_are_scaled_down_and_this_is_said(
    colour: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: list[OperationExample]
) -> None:
    run(tmp_path, colour)
    line = capsys.readouterr().out.splitlines()[0]
    assert "100×200 pixels, scaled down to 32×64" in line
    run(tmp_path, colour, "--size", "20")
    assert [tuple(example.image.shape) for example in shown] == [(3, 32, 64), (3, 10, 20)]


def test_small_images_stay_as_they_are(
    grey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: list[OperationExample]
) -> None:
    run(tmp_path, grey)
    assert "scaled" not in capsys.readouterr().out
    assert shown[0].image.numpy().tolist() == [np.asarray(Image.open(grey)).tolist()]


def test_a_kernel_is_learnt_beside_the_known_one(
    grey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, grey, "--learn")
    paths = [tmp_path / f"figures/grey_sobel_x{end}.png" for end in ("", "_learnt")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    first = [path.read_bytes() for path in paths]
    run(tmp_path, grey, "--learn")
    assert first == [path.read_bytes() for path in paths]


def test_figures_go_below_logs_by_default(
    grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as place:
        place.chdir(tmp_path)
        assert main(["convolve", str(grey)]) == 0
    assert (tmp_path / "logs/convolve/figures/grey_sobel_x.png").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--kernel", "sobell"], ["'sobell'", "sobel_x", "laplacian"]),
        (["--values", "1 2 / 3"], ["rows of the kernel have 2, 1 numbers"]),
        (["--values", "1 x"], ["'x'"]),
        (["--values", ""], ["no matrix"]),
        (["--values", "1 nan"], ["not finite"]),
        (["--values", "1e9"], ["too large for a figure"]),
        (["--values", "1 2 3 4 5 6 7 8"], ["7×7"]),
        (["--values", "1", "--kernel", "emboss"], ["not allowed with"]),
        (["--dilation", "6"], ["does not fit 12 pixels"]),
        (["--padding", "12", "--padding_mode", "reflect"], ["reflect padding of 12", "at most 11"]),
        (["--padding", "300"], ["616 pixels is too long"]),
        (["--padding", "99999999999999999999"], ["too large for a figure"]),
        (["--padding", "-1"], ["padding -1: too small"]),
        (["--stride", "0"], ["stride 0: too small"]),
        (["--stride", "two"], ["'two'"]),
        (["--at", "10", "0"], ["outside the output of 10×14", "rows are 0 to 9"]),
        (["--at", "0", "-1"], ["outside the output"]),
        (["--channel", "red"], ["the image is grey"]),
        (["--padding_mode", "mirror"], ["'mirror'", "reflect"]),
        (["--window", "3"], ["--window has no meaning for convolution"]),
        (["--operation", "max_pooling", "--kernel", "emboss"], ["--kernel has no meaning"]),
        (["--operation", "max_pooling", "--dilation", "2"], ["--dilation has no meaning"]),
        (["--operation", "max_pooling", "--padding", "2"], ["more than half"]),
        (["--operation", "transposed", "--learn"], ["--learn has no meaning"]),
        (["--operation", "transposed", "--output_padding", "2"], ["use 0 to 1"]),
        (["--operation", "blur"], ["'blur'", "max_pooling"]),
        (["--sample", "digit"], ["--sample digit stands beside"]),
        (["--size", "4"], ["use 8 to 128"]),
        (["--strid", "2"], ["--strid"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_impossible_settings_are_answered_with_a_remedy(
    argv: list[str], words: list[str], grey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refuse(capsys, grey, *argv)
    assert all(word in message for word in words), message


def test_odd_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.png" in refuse(capsys, tmp_path / "nowhere.png")
    (tmp_path / "odd.png").write_bytes(b"odd")
    assert "odd.png" in refuse(capsys, tmp_path / "odd.png")


def test_an_output_that_is_no_folder_is_refused(
    grey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not a folder" in refuse(capsys, grey, "--output", grey)


def test_an_image_of_zeros_teaches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "black.png")
    message = refuse(capsys, tmp_path / "black.png", "--learn", "--output", tmp_path)
    assert "teaches no kernel" in message


def test_lightning_is_not_imported_for_an_image_file(grey: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from cnn_lightning.cli import main; code = main(sys.argv[1:]); "
        "assert code == 0; print('lightning' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    argv = ["convolve", str(grey), "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", script, *argv], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
