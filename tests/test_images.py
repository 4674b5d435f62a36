import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from make_data import close_folder
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as reference

from cnn_lightning.errors import UserError
from cnn_lightning.images import fit_image, list_images, load_images, read_image, read_size

RED, GREY_OF_RED = (255, 0, 0), 76  # 0.299 · 255, ITU-R 601
SIZE = (6, 4)  # Pillow's order: width, height
ORIENTATION = 0x0112  # EXIF tag


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)  # a test's own pixels
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=draws)


def picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())


def grey_16(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 6), value, dtype=np.uint16))


def palette(**options: int) -> Image.Image:
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, *RED])
    image.info.update(options)
    return image


def save_animation(path: Path) -> None:
    Image.new("RGB", SIZE, RED).save(
        path, save_all=True, append_images=[Image.new("RGB", SIZE, "blue")], lossless=True
    )


def save_tiff(path: Path, image: Image.Image, tags: dict[int, int]) -> None:
    """Write a plain TIFF and change what it says of its pixels."""
    image.save(path)
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", content, 4)[0] + 2
    for entry in range(start, start + 12 * struct.unpack_from("<H", content, start - 2)[0], 12):
        tag, kind, count, _ = struct.unpack_from("<HHII", content, entry)
        if tag in tags:
            assert count == 1
            struct.pack_into("<H" if kind == 3 else "<I", content, entry + 8, tags[tag])
    path.write_bytes(content)


def grey_12(value: int) -> Callable[[Path], None]:
    """A writer of 6×4 pixels of 12 bits each, two in three bytes: those of 9×4 of 8 bits."""
    three = (value << 12 | value).to_bytes(3, "big")
    image = Image.frombytes("L", (9, 4), three * 12)
    return lambda path: save_tiff(path, image, {256: 6, 258: 12})


def save_red(kind: str, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.new("RGB", SIZE, RED).save(path, kind, **options)


# name of the file, who writes it, the one colour it must show, the tolerance (lossy formats: 2)
KINDS: dict[str, tuple[Callable[[Path], object], tuple[int, int, int], int]] = {
    "plain.jpg": (save_red("JPEG"), RED, 2),
    "progressive.JPEG": (save_red("JPEG", progressive=True), RED, 2),
    "plain.png": (save_red("PNG"), RED, 0),
    "plain.bmp": (save_red("BMP"), RED, 0),
    "plain.webp": (save_red("WEBP", lossless=True), RED, 0),
    "plain.tif": (save_red("TIFF"), RED, 0),
    "plain.ppm": (save_red("PPM"), RED, 0),
    "png_called.jpg": (save_red("PNG"), RED, 0),
    "grey.jpg": (Image.new("L", SIZE, 200).save, (200, 200, 200), 2),
    "grey.pgm": (Image.new("L", SIZE, 200).save, (200, 200, 200), 0),
    "bilevel.png": (Image.new("1", SIZE, 1).save, (255, 255, 255), 0),
    "cmyk.jpg": (Image.new("CMYK", SIZE, (0, 255, 255, 0)).save, RED, 2),
    "cmyk.tif": (Image.new("CMYK", SIZE, (0, 255, 255, 0)).save, RED, 0),
    "ycbcr.tif": (Image.new("RGB", SIZE, RED).convert("YCbCr").save, RED, 2),
    "palette.png": (palette().save, RED, 0),
    "palette_clear.png": (lambda path: palette().save(path, transparency=1), (255, 255, 255), 0),
    "palette_bytes.png": (
        lambda path: palette().save(path, transparency=bytes([255, 0])),
        (255, 255, 255),
        0,
    ),
    "clear.gif": (lambda path: palette().save(path, transparency=1), (255, 255, 255), 0),
    "rgba_clear.png": (Image.new("RGBA", SIZE, (*RED, 0)).save, (255, 255, 255), 0),
    "rgba_half.png": (Image.new("RGBA", SIZE, (*RED, 128)).save, (255, 127, 127), 0),
    "rgba_full.webp": (
        lambda path: Image.new("RGBA", SIZE, (*RED, 255)).save(path, lossless=True),
        RED,
        0,
    ),
    "la_half.png": (Image.new("LA", SIZE, (0, 128)).save, (127, 127, 127), 0),
    "rgb_key.png": (save_red("PNG", transparency=RED), (255, 255, 255), 0),
    "grey_16.png": (grey_16(65535).save, (255, 255, 255), 0),
    "grey_16_low.png": (grey_16(257 * 3).save, (3, 3, 3), 0),
    "grey_16.tif": (grey_16(257 * 100 + 128).save, (100, 100, 100), 0),
    "grey_16_white_is_zero.tif": (
        lambda path: save_tiff(path, grey_16(257 * 100), {262: 0}),
        (155, 155, 155),
        0,
    ),
    "grey_12.tif": (grey_12(4095), (255, 255, 255), 0),
    "grey_12_low.tif": (grey_12(100), (6, 6, 6), 0),  # 100 · 255 / 4095 = 6.2
    # 50 is a grey of 100 darkened by an alpha of 1/2
    "premultiplied.tif": (
        lambda path: save_tiff(path, Image.new("LA", SIZE, (50, 128)), {338: 1}),
        (177, 177, 177),
        1,
    ),
    "grey_16.pgm": (grey_16(257 * 100 + 129).save, (101, 101, 101), 0),
    "grey_32.tif": (
        Image.fromarray(np.full((4, 6), 257 * 9, dtype=np.int32)).save,
        (9, 9, 9),
        0,
    ),
    "animated.gif": (save_animation, RED, 0),
    "animated.webp": (save_animation, RED, 0),
    "animated.png": (save_animation, RED, 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_right(name: str, tmp_path: Path) -> None:
    write, colour, tolerance = KINDS[name]
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 4, 6)
    difference = image.int() - torch.tensor(colour).reshape(3, 1, 1)
    assert difference.abs().max() <= tolerance
    grey = read_image(tmp_path / name, mode="L")
    assert grey.shape == (1, 4, 6)
    assert torch.equal(grey[0], load_images(image.unsqueeze(0), 1)[0][0])


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    image = noise(5, 7)
    picture(image).save(tmp_path / "image.png")
    assert torch.equal(read_image(tmp_path / "image.png"), image)
    assert read_size(tmp_path / "image.png") == (5, 7)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (2, lambda image: image.flip(2)),
        (3, lambda image: image.flip(1, 2)),
        (4, lambda image: image.flip(1)),
        (5, lambda image: image.transpose(1, 2)),
        (6, lambda image: image.rot90(-1, (1, 2))),
        (7, lambda image: image.transpose(1, 2).flip(1, 2)),
        (8, lambda image: image.rot90(1, (1, 2))),
    ],
)
def test_exif_orientation_is_applied(
    orientation: int, turn: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    image, exif = noise(5, 7), Image.Exif()
    exif[ORIENTATION] = orientation
    picture(image).save(tmp_path / "image.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "image.png"), turn(image))
    with Image.open(tmp_path / "image.png") as opened:
        assert torch.equal(load_images(opened, 3)[0], turn(image))


@pytest.mark.parametrize("orientation", [6, 8])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_plain_tiff_is_turned_whole(
    kind: type[np.uint8 | np.uint16], orientation: int, tmp_path: Path
) -> None:
    values, exif = noise(40, 60, channels=1)[0].numpy().astype(kind), Image.Exif()
    exif[ORIENTATION] = orientation
    scale = 257 if kind is np.uint16 else 1  # 65535 / 255
    Image.fromarray(values * kind(scale)).save(tmp_path / "image.tif", exif=exif)
    upright = Image.fromarray(values.astype(np.uint8))
    upright.getexif()[ORIENTATION] = orientation
    expected = torch.from_numpy(np.array(ImageOps.exif_transpose(upright)))
    assert expected.shape == (60, 40)
    assert torch.equal(read_image(tmp_path / "image.tif", mode="L")[0], expected)


def truncated(path: Path) -> None:
    picture(noise(64, 64)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def damaged_png(path: Path) -> None:
    Image.new("RGB", SIZE).save(path, "PNG")
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"XXXX"))


def huge_png(path: Path) -> None:
    def block(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    content = block(b"IHDR", header) + block(b"IDAT", pixels) + block(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def save_array(values: NDArray[np.generic]) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.jpg": (lambda path: path.touch(), r"empty \(0 bytes\)"),
    "truncated.jpg": (truncated, "cannot be read"),
    "damaged.png": (damaged_png, "cannot be read|is none of"),
    "text.jpg": (lambda path: path.write_text("not an image"), "is none of JPEG"),
    "page.png": (lambda path: path.write_text("<html></html>"), "is none of JPEG"),
    "postscript.jpg": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "is none of"),
    "huge.png": (huge_png, "has more than .* pixels"),
    "folder.png": (lambda path: path.mkdir(), "is a folder"),
    "missing.png": (lambda path: None, "there is no image"),
    "float.tif": (save_array(np.ones((4, 6), dtype=np.float32)), "kind F"),
    "negative.tif": (save_array(np.full((4, 6), -1, dtype=np.int32)), "outside 0..65535"),
    "wide.tif": (save_array(np.full((4, 6), 70_000, dtype=np.int32)), "outside 0..65535"),
    "lab.tif": (Image.new("LAB", SIZE).save, "kind LAB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize("warned", ["error", "ignore"])
@pytest.mark.parametrize("limit", [23, 13, 11])  # 6 × 4 pixels; above twice the limit Pillow raises
def test_too_many_pixels_are_refused_whatever_becomes_of_warnings(
    limit: int, warned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(warned)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=f"image.png has more than {limit} pixels"):
            read_image(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24)
    assert read_image(tmp_path / "image.png").shape == (3, 4, 6)


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (96, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fit_image_is_torchvisions_resize_and_crop(shape: tuple[int, int], channels: int) -> None:
    image = noise(*shape, channels)
    result = fit_image(image, 32, 32)
    assert result.shape == (channels, 32, 32)
    expected = reference.center_crop(reference.resize(image, [32], antialias=True), [32, 32])
    # both round a fixed-point sum; they may differ in the last bit
    assert (result.int() - expected.int()).abs().max() <= 1


def test_fit_image_keeps_an_image_of_that_size() -> None:
    image = noise(8, 8)
    assert fit_image(image, 8, 8) is image
    assert fit_image(noise(1, 9), 4, 4).shape == (3, 4, 4)


def test_fit_image_to_a_size_that_is_no_square() -> None:
    image = noise(40, 64)
    expected = reference.center_crop(reference.resize(image, [40, 64], antialias=True), [20, 64])
    assert torch.equal(fit_image(image, 20, 64), expected)
    assert fit_image(image, 64, 20).shape == (3, 64, 20)


def test_load_images_takes_tensors_pillow_images_and_paths(tmp_path: Path) -> None:
    image = noise(8, 9)
    path = tmp_path / "image.png"
    picture(image).save(path)
    for given in (image.unsqueeze(0), path, str(path), picture(image), [path], [picture(image)]):
        (loaded,) = load_images(given, 3)
        assert torch.equal(loaded, image)
    assert [len(load_images([path] * count, 1)) for count in (0, 2)] == [0, 2]


def test_colour_to_grey_is_pillows() -> None:
    image = noise(64, 64)
    expected = torch.from_numpy(np.array(picture(image).convert("L")))
    assert torch.equal(load_images(image.unsqueeze(0), 1)[0][0], expected)
    assert torch.equal(load_images(picture(image), 1)[0][0], expected)
    (grey,) = load_images(torch.tensor(RED, dtype=torch.uint8).reshape(1, 3, 1, 1), 1)
    assert grey.item() == GREY_OF_RED


def test_grey_to_colour_repeats() -> None:
    grey = noise(4, 4, channels=1)
    assert torch.equal(load_images(grey.unsqueeze(0), 3)[0], grey.expand(3, 4, 4))


def test_other_tensors_are_refused() -> None:
    for images in (torch.zeros(1, 3, 4, 4), noise(4, 4), noise(4, 4, channels=2).unsqueeze(0)):
        with pytest.raises(ValueError, match="not uint8 N×C×H×W"):
            load_images(images, 3)


def test_tensors_of_other_channels_are_taken_where_they_are_wanted(tmp_path: Path) -> None:
    images = noise(6, 4, channels=4).unsqueeze(0)
    (image,) = load_images(images, 4)
    assert torch.equal(image, images[0])
    halves = fit_image(image, 3, 2)
    assert torch.equal(halves, torch.cat([fit_image(one[None], 3, 2) for one in image]))
    with pytest.raises(ValueError, match="with C 4"):
        load_images(images[:, :3], 4)
    with pytest.raises(UserError, match="4 channels are wanted"):
        load_images(tmp_path / "image.png", 4)


def test_a_damaged_pillow_image_is_named_by_its_place(tmp_path: Path) -> None:
    truncated(tmp_path / "image.jpg")
    with (
        Image.open(tmp_path / "image.jpg") as opened,
        pytest.raises(UserError, match="image 1 cannot be read"),
    ):
        load_images([Image.new("RGB", SIZE), opened], 3)


@pytest.mark.parametrize("one", [noise(4, 6), noise(4, 6).numpy()], ids=["tensor", "array"])
def test_tensors_in_a_list_are_refused_with_what_is_taken(
    one: torch.Tensor | NDArray[np.uint8],
) -> None:
    with pytest.raises(ValueError, match=r"image 1 is a .*tensors come as one, N×C×H×W"):
        load_images([picture(noise(4, 6)), one], 3)  # type: ignore[list-item]


def test_list_images_is_sorted_recursive_and_blind_to_case(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.TiFf", "notes.txt", ".hidden.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == ["a.png", "b.JPG", "sub/c.TiFf"]


def test_a_folder_that_cannot_be_listed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_folder(monkeypatch, tmp_path / "b")
    with pytest.raises(UserError, match=r"the folder .*/b cannot be read: Permission denied"):
        list_images(tmp_path)
