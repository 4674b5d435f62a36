"""Odd and hostile image files: read right, or named and refused, alike in training and prediction.

With -s the test prints what each of them got.
"""

import csv
import os
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from make_checkpoint import save_checkpoint
from PIL import Image, ImageCms
from torch import Tensor

from cnn_lightning import ImageFolderDataModule, LeNet
from cnn_lightning.cli import main
from cnn_lightning.errors import UserError
from cnn_lightning.images import fit_image, read_image

# wide, so that a rotation shows: the left half red, the right one blue
WIDTH, HEIGHT = 24, 12
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
SIZE = 32
ORIENTATION = 0x0112  # EXIF tag


def halves(left: Any = RED, right: Any = BLUE, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (WIDTH, HEIGHT), left)
    image.paste(right, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return image


def pixels(left: Any = RED, right: Any = BLUE) -> Tensor:
    """What `halves` must be read as: 3×H×W uint8."""
    image = torch.empty(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, :, : WIDTH // 2] = torch.tensor(left, dtype=torch.uint8).reshape(3, 1, 1)
    image[:, :, WIDTH // 2 :] = torch.tensor(right, dtype=torch.uint8).reshape(3, 1, 1)
    return image


def grey(left: int, right: int) -> Tensor:
    return pixels((left,) * 3, (right,) * 3)


def arrays(left: float, right: float, dtype: Any) -> Image.Image:
    values = np.empty((HEIGHT, WIDTH), dtype)
    values[:, : WIDTH // 2], values[:, WIDTH // 2 :] = left, right
    return Image.fromarray(values)


def palette() -> Image.Image:
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return image


def rotated(path: Path) -> None:
    """Stored lying on its side, with the note how to turn it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    halves().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def animated(path: Path) -> None:
    other = Image.new("RGB", (WIDTH, HEIGHT), "green")
    halves().save(path, save_all=True, append_images=[other], lossless=True)


def interlaced(path: Path) -> None:
    """Adam7, which Pillow reads and does not write (PNG specification, 8.2)."""
    rows = pixels().permute(1, 2, 0).numpy()
    data = b""
    for top, left, down, right in (
        *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
        *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
    ):
        part = rows[top::down, left::right]
        data += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    write_png(path, struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1), zlib.compress(data))


def bomb(path: Path) -> None:
    """A few kilobytes that declare ten thousand million pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    write_png(path, header, zlib.compress(bytes(1_000_000)))


def write_png(path: Path, header: bytes, data: bytes) -> None:
    content = b"\x89PNG\r\n\x1a\n"
    for kind, part in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        content += struct.pack(">I", len(part)) + kind + part
        content += struct.pack(">I", zlib.crc32(kind + part))
    path.write_bytes(content)


def cut(path: Path, share: float = 0.6) -> None:
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flipped(path: Path) -> None:
    halves().save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def save(image: Image.Image, kind: str | None = None, **options: Any) -> Callable[[Path], object]:
    return lambda path: image.save(path, kind, **options)


def outside(path: Path) -> Path:
    return path.parents[3] / "outside.png"


def link_outside(path: Path) -> None:
    halves().save(outside(path))
    path.symlink_to(outside(path))


def tiff_of_floats(path: Path) -> None:
    arrays(0.0, 1.0, np.float32).save(path)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SVG = "<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"
POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"

# name of the file, how it is made, and what it must be read as or refused with
READ: dict[str, tuple[Callable[[Path], object], Tensor, int]] = {
    "plain.png": (save(halves()), pixels(), 0),
    "interlaced.png": (interlaced, pixels(), 0),
    "palette.png": (save(palette()), pixels(), 0),
    "palette_transparent.png": (save(palette(), transparency=1), pixels(RED, WHITE), 0),
    "rgba.png": (save(halves((*RED, 255), (*BLUE, 0), "RGBA")), pixels(RED, WHITE), 0),
    "grey_alpha.png": (save(halves((9, 255), (9, 0), "LA")), grey(9, 255), 0),
    "one_bit.png": (save(halves(0, 1, "1")), grey(0, 255), 0),
    "sixteen_bits.png": (save(arrays(257 * 3, 257 * 200, np.uint16)), grey(3, 200), 0),
    "sixteen_bits.tif": (save(arrays(257 * 3, 257 * 200, np.uint16)), grey(3, 200), 0),
    "animated.gif": (animated, pixels(), 0),
    "animated.png": (animated, pixels(), 0),
    "animated.webp": (animated, pixels(), 0),
    "profile.png": (save(halves(), icc_profile=PROFILE), pixels(), 0),
    "png_inside.jpg": (save(halves(), "PNG"), pixels(), 0),
    "upper.PNG": (save(halves()), pixels(), 0),
    "plain.bmp": (save(halves()), pixels(), 0),
    "plain.ppm": (save(halves()), pixels(), 0),
    "cmyk.tif": (save(halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK")), pixels(), 0),
    # lossy, and with colours of half the size
    "cmyk.jpg": (save(halves((0, 255, 255, 0), (255, 255, 0, 0), "CMYK"), quality=95), pixels(), 9),
    "plain.jpg": (save(halves(), quality=95, subsampling=0), pixels(), 9),
    "progressive.jpg": (
        save(halves(), quality=95, subsampling=0, progressive=True),
        pixels(),
        9,
    ),
    "rotated.png": (rotated, pixels(), 0),
    "no\udcff_text.png": (save(halves()), pixels(), 0),
    "link_inside.png": (lambda path: path.symlink_to("0.png"), pixels(), 0),
}
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.png": (lambda path: path.write_bytes(b""), "is empty"),
    "text.jpg": (lambda path: path.write_text("hello"), "is none of"),
    "picture.svg.png": (lambda path: path.write_text(SVG), "is none of"),
    "postscript.png": (lambda path: path.write_text(POSTSCRIPT), "is none of"),
    "cut.jpg": (cut, "cannot be read"),
    "cut.png": (cut, "cannot be read"),
    "cut_in_its_header.png": (lambda path: cut(path, 0.002), "cannot be read|is none of"),
    "flipped.png": (flipped, "cannot be read"),
    "bomb.png": (bomb, "pixels"),
    "floats.tif": (tiff_of_floats, "pixels of the kind F"),
    "lab.tif": (save(Image.new("LAB", (9, 9))), "pixels of the kind LAB"),
    "beyond_16_bits.tif": (save(arrays(0, 70_000, np.int32)), "outside 0..65535"),
    "pipe.png": (lambda path: os.mkfifo(path), "pipe or device"),
    "device.png": (lambda path: path.symlink_to("/dev/zero"), "pipe or device|is a link to"),
    "link_to_itself.png": (lambda path: path.symlink_to(path), "cannot be read"),
    "link_to_nowhere.png": (lambda path: path.symlink_to("nowhere"), "cannot be read|no image"),
    "escape\x1b[2J.png": (lambda path: path.write_bytes(b""), "is empty"),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / "train" / name).mkdir(parents=True)
        (root / "test" / name).mkdir(parents=True)
        halves().save(root / "test" / name / "0.png")
        for number in range(2):
            halves().save(root / "train" / name / f"{number}.png")
    return root


def in_training(path: Path, **options: Any) -> Tensor:
    """The image as a data module gives it: 3×S×S uint8."""
    data = ImageFolderDataModule(root=str(path.parents[2]), image_size=SIZE, **options)
    images, _ = data.load("train")
    names = list(data.image_names("train"))
    return images[names.index(path.relative_to(path.parents[2]).as_posix())]


def in_prediction(path: Path, classifier: LeNet) -> Tensor:
    """The image as a classifier's `predict_images` takes it; 3×S×S uint8."""
    seen: list[Tensor] = []
    prepare = classifier.preprocessing
    assert prepare is not None

    def watch(images: Tensor) -> Tensor:
        seen.append(images)
        return prepare(images)

    classifier.preprocessing = watch  # type: ignore[assignment]
    try:
        names, probabilities = classifier.predict_images([path])
    finally:
        classifier.preprocessing = prepare
    assert names[0] in ("cat", "dog")
    assert probabilities.shape == (1, 2)
    return seen[0][0]


def through_the_command(
    path: Path, checkpoint: Path, *more: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Run `predict` on a file or folder; probabilities by path, and reasons by path."""
    out = checkpoint.with_name("logs")
    shutil.rmtree(out, ignore_errors=True)
    argv = ["predict", "--ckpt_path", str(checkpoint), "--log_dir", str(out), *more]
    code = main([*argv, f"--data.paths+={path}"])
    tables: list[dict[str, str]] = []
    for name, (key, value) in {
        "predictions.csv": ("image", "top1_probability"),
        "predictions_unread.csv": ("path", "reason"),
    }.items():
        file = out / checkpoint.stem / "version_0" / name
        rows = []
        if file.exists():
            with file.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
        tables.append({row[key]: row[value] for row in rows})
    assert code == (0 if tables[0] else 2)
    return tables[0], tables[1]


def told(ask: Callable[[], Tensor]) -> str | Tensor:
    try:
        return ask()
    except UserError as error:
        return str(error)


@pytest.fixture
def classifier(photos: Path) -> LeNet:
    torch.manual_seed(0)
    classifier = LeNet(num_classes=2)
    classifier.adapt_to(ImageFolderDataModule(root=str(photos), image_size=SIZE))
    return classifier


def test_odd_images_are_read_right_or_refused(
    photos: Path, classifier: LeNet, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, wrong = [], []
    for name in (*READ, *REFUSED):
        path = photos / "train/cat" / name
        write = (READ.get(name) or REFUSED[name])[0]
        write(path)
        outcomes = []
        for ask in (lambda: in_training(path), lambda: in_prediction(path, classifier)):  # noqa: B023
            outcome = told(ask)
            if isinstance(outcome, Tensor):
                fits = name in READ and is_right(outcome, *READ[name][1:])
                outcomes.append("read right" if fits else "READ WRONG")
            else:
                is_known = name in REFUSED and re.search(REFUSED[name][1], outcome) is not None
                fits = is_known and outcome.replace("\n", "").isprintable()
                shown = outcome.partition("\n")[0].replace(f"{path.parent}/", "")
                outcomes.append(shown.replace(str(photos), "the folder")[:70])
            if not fits:
                wrong.append(f"{name}: {outcome}")
        lines.append(f"{name!r:28} {outcomes[0]:72} {outcomes[1]}")
        path.unlink()
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert not wrong, "\n".join(wrong)
    assert len(lines) >= 30


def test_the_command_predicts_what_can_be_read_and_lists_the_rest(
    photos: Path, classifier: LeNet, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ImageFolderDataModule(root=str(photos), image_size=SIZE)
    checkpoint = photos.with_name("odd.ckpt")
    save_checkpoint(checkpoint, classifier, data)
    folder = photos / "odd/by/depth"
    folder.mkdir(parents=True)
    halves().save(folder / "0.png")
    for name, (write, *_) in {**READ, **REFUSED}.items():
        write(folder / name)
    predicted, unread = through_the_command(folder, checkpoint)
    shown = capsys.readouterr()
    lines, wrong = [], []
    for name in (*READ, *REFUSED):
        # in a table, what is no text is written as \\udc..
        path = str(folder / name).encode(errors="backslashreplace").decode()
        if name in READ:
            right = fit_image(READ[name][1], SIZE, SIZE)[None]
            expected = classifier.predict_images(right)[1].max()
            # lossy formats come near, all others to the last digit
            tolerance = 2e-3 if READ[name][2] else 2e-6
            fits = abs(float(predicted.get(path, "nan")) - float(expected)) <= tolerance
            lines.append(f"{name!r:28} {predicted.get(path)} for {float(expected):.6f}")
        else:
            reason = unread.get(path, "")
            fits = re.search(REFUSED[name][1], reason) is not None and path not in predicted
            lines.append(f"{name!r:28} {reason.replace(str(folder), '')[:90]}")
        if not fits:
            wrong.append(lines[-1])
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert not wrong, "\n".join(wrong)
    # the control: an image that is read wrong would show
    shares = [float(predicted[str(folder / name)]) for name in ("0.png", "rgba.png", "one_bit.png")]
    assert min(abs(shares[0] - other) for other in shares[1:]) > 1e-3
    assert len(predicted) == len(READ) + 1
    assert len(unread) == len(REFUSED)
    assert f"{len(predicted)} images predicted, {len(unread)} files not read" in shown.out
    assert "\x1b" not in shown.out
    assert not shown.err


@pytest.mark.parametrize("name", ["empty.png", "bomb.png", "pipe.png", "device.png", "cut.jpg"])
def test_the_command_on_one_bad_file_alone_fails_plainly(
    name: str, photos: Path, classifier: LeNet, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ImageFolderDataModule(root=str(photos), image_size=SIZE)
    checkpoint = photos.with_name("odd.ckpt")
    save_checkpoint(checkpoint, classifier, data)
    REFUSED[name][0](photos / name)
    predicted, unread = through_the_command(photos / name, checkpoint)
    assert not predicted
    assert re.search(REFUSED[name][1], unread[str(photos / name)])
    told_to_user = capsys.readouterr().err
    assert told_to_user.startswith("error: none of 1 files could be read\n")
    assert "Traceback" not in told_to_user


def is_right(image: Tensor, right: Tensor, tolerance: int) -> bool:
    difference = (image.int() - fit_image(right, SIZE, SIZE).int()).abs()
    middle = SIZE // 2
    difference[:, :, middle - 4 : middle + 4] = 0  # where lossy colours run into one another
    return image.shape == (3, SIZE, SIZE) and int(difference.max()) <= tolerance


def test_link_out_of_the_folder_needs_a_word(photos: Path) -> None:
    path = photos / "train/cat/link.png"
    link_outside(path)
    with pytest.raises(UserError, match=r"link.png is a link to .*outside.png.*\n.*allow_links"):
        in_training(path)
    assert is_right(in_training(path, allow_links=True), pixels(), 0)


def test_folder_by_the_name_of_an_image_is_a_folder(photos: Path) -> None:
    (photos / "train/cat/more.png").mkdir()
    halves().save(photos / "train/cat/more.png/2.png")
    data = ImageFolderDataModule(root=str(photos), image_size=SIZE)
    assert "train/cat/more.png/2.png" in data.image_names("train")
    with pytest.raises(UserError, match=r"more.png is a folder, not an image"):
        read_image(photos / "train/cat/more.png")


def test_all_damaged_images_are_counted(photos: Path) -> None:
    for number in range(9):
        (photos / f"train/dog/damaged_{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"9 images: .*damaged_0.png is empty.* and 4 more"):
        in_training(photos / "train/cat/0.png")


def test_long_and_thin_image(photos: Path, classifier: LeNet) -> None:
    path = photos / "train/cat/thin.png"
    Image.new("L", (100_000, 1), 7).save(path)
    assert (in_training(path) == 7).all()
    assert (in_prediction(path, classifier) == 7).all()


def test_file_without_permission(photos: Path) -> None:
    path = photos / "train/cat/secret.png"
    halves().save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UserError, match=r"secret.png cannot be read"):
        in_training(path)
