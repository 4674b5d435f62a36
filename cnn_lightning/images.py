"""Image files to uint8 tensors: odd kinds are read right or refused, never read wrong."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cnn_lightning.errors import UserError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp"),
    *(".gif", ".tif", ".tiff", ".ppm", ".pgm"),
)

Mode = Literal["RGB", "L"]
ImageSource = str | Path | Image.Image

# without a list Pillow tries every format it knows, among them EPS, which starts Ghostscript
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_REMEDY = "repair the file or delete it"
# of TIFF 6.0, section 3
_BITS_TAG, _PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 258, 262, 0


def list_images(folder: Path) -> list[str]:
    """All image files below a folder, known by their extension in upper or lower case.

    Hidden files and folders (`.name`) are passed over, and links to folders are not followed.

    Returns:
        Paths relative to the folder, with `/`, sorted.

    Raises:
        UserError: A folder cannot be listed.
    """
    return [name for name in walk_files(folder) if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """Whether a file's name ends as those of images do, in upper or lower case."""
    return name.lower().endswith(EXTENSIONS)


def walk_files(folder: Path, on_error: Callable[[OSError], None] | None = None) -> list[str]:
    """All files below a folder.

    Hidden files and folders (`.name`) are passed over, and links to folders are not followed.

    Args:
        folder: Where to look.
        on_error: Called with the error of a folder that cannot be listed (`error.filename`), which
            is then passed over.

    Returns:
        Paths relative to the folder, with `/`, sorted.

    Raises:
        UserError: A folder cannot be listed, and there is no `on_error`.
    """
    found: list[str] = []
    for directory, folders, names in os.walk(folder, onerror=on_error or _refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # by strings: of many files, a Path for each takes longer than the disk does
        inner = os.path.relpath(directory, folder).replace(os.sep, "/")
        prefix = "" if inner == "." else f"{inner}/"
        found += [prefix + name for name in names if not name.startswith(".")]
    return sorted(found)


def _refuse_folder(error: OSError) -> None:
    raise UserError(
        f"the folder {error.filename} cannot be read: {error.strerror}",
        "make it readable, or move it elsewhere",
    ) from error


def read_image(path: Path | str, *, mode: Mode = "RGB") -> Tensor:
    """Read one image file.

    The EXIF orientation is applied. Transparent images lie on white. Of an animation the first
    frame is read. Grey of 12 or 16 bits is scaled to 0..255 and rounded. Colour becomes grey by
    ITU-R 601, as Pillow's "L"; colour profiles are not applied.

    Args:
        path: JPEG, PNG, BMP, WebP, GIF, TIFF, PPM or PGM; the content decides, not the extension.
        mode: Three channels or one.

    Returns:
        C×H×W uint8, C being 3 for "RGB" and 1 for "L".

    Raises:
        UserError: The file is missing, empty, damaged, no image, larger than Pillow's limit
            (`PIL.Image.MAX_IMAGE_PIXELS`), or its pixels have no known range (floats, 32 bits).
    """
    with _open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)  # and so it is loaded
    return _to_tensor(image, mode, str(path), _tiff_tags(image))


def read_size(path: Path | str) -> tuple[int, int]:
    """Height and width as the header of an image file states them, before any EXIF rotation.

    Raises:
        UserError: As `read_image`, but damage behind the header is not noticed.
    """
    with _open(path) as image:
        return image.height, image.width


def fit_image(image: Tensor, height: int, width: int) -> Tensor:
    """Scale an image to fill a size, antialiased bilinear, and crop what is over on both sides.

    Args:
        image: C×H×W uint8.
        height: Of the result, at least 1.
        width: Of the result, at least 1.

    Returns:
        C×height×width uint8; `image` itself where it has that size already.

    Example:
        >>> fit_image(torch.full((1, 6, 4), 7, dtype=torch.uint8), 1, 2).tolist()
        [[[7, 7]]]
    """
    if image.shape[1:] == (height, width):
        return image
    if len(image) not in (1, 3):  # Pillow would take the fourth for transparency
        return torch.cat([fit_image(channel[None], height, width) for channel in image])
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    picture = Image.fromarray(pixels.contiguous().numpy())
    return _pixels(ImageOps.fit(picture, (width, height), method=Image.Resampling.BILINEAR))


def load_images(
    images: Tensor | ImageSource | Sequence[ImageSource], channels: int
) -> list[Tensor]:
    """Bring what a user gives for prediction into one form.

    Args:
        images: N×C×H×W uint8, with 1 or 3 channels where 1 or 3 are wanted, else with as many as
            are wanted; or one or more Pillow images or paths.
        channels: Channels wanted.

    Returns:
        One C×H×W uint8 tensor per image; sizes may differ.

    Raises:
        UserError: As `read_image`; a Pillow image is named by its place, from 0. Files or Pillow
            images are given where other than 1 or 3 channels are wanted.
        ValueError: A tensor has another type or shape, or stands in a sequence, or an array does.
    """
    mode: Mode = "RGB" if channels == 3 else "L"
    if isinstance(images, Tensor):
        known = {1, 3} if channels in (1, 3) else {channels}
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in known:
            shape, wanted = "×".join(map(str, images.shape)), " or ".join(map(str, sorted(known)))
            raise ValueError(
                f"images are {images.dtype} {shape}, not uint8 N×C×H×W with C {wanted}"
            )
        return list(_to_channels(images, channels))
    images = [images] if isinstance(images, ImageSource) else list(images)
    for place, image in enumerate(images):
        if isinstance(image, Tensor | np.ndarray):
            raise ValueError(
                f"image {place} is a {type(image).__name__}, not a path or a Pillow image; "
                "tensors come as one, N×C×H×W uint8"
            )
    if channels not in (1, 3):
        raise UserError(
            f"{channels} channels are wanted, and image files are read with 1 or 3",
            "give a tensor N×C×H×W of uint8 to predict_images",
        )
    return [
        _from_pillow(image, mode, f"image {place}")
        if isinstance(image, Image.Image)
        else read_image(image, mode=mode)
        for place, image in enumerate(images)
    ]


def _to_channels(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    # ITU-R 601 in 16-bit fixed point: the very numbers of Pillow's "L" (libImaging/Convert.c)
    red, green, blue = images.int().unbind(1)
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey.unsqueeze(1).to(torch.uint8)


@contextmanager
def _open(path: Path | str) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises meanwhile becomes an error that names the file."""
    try:
        if not stat.S_ISREG(mode := Path(path).stat().st_mode) and not stat.S_ISDIR(mode):
            raise UserError(f"{path} is a pipe or device, not an image", "delete it")
        # a stream: by its name Pillow maps a TIFF that is turned by 90° with the wrong line length
        with Path(path).open("rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            # up to twice the limit Pillow only warns, and warnings may be off
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels", "make it smaller"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"there is no image {path}", "check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, not an image", "name the files in it") from error
    except UnidentifiedImageError as error:
        empty = Path(path).stat().st_size == 0
        what = "is empty (0 bytes)" if empty else f"is none of {', '.join(_FORMATS)}"
        raise UserError(f"{path} {what}", _REMEDY) from error
    except (MemoryError, UserError):
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        raise UserError(f"{path} cannot be read: {error}", _REMEDY) from error


def _from_pillow(image: Image.Image, mode: Mode, name: str) -> Tensor:
    try:
        upright = ImageOps.exif_transpose(image)  # loads an image that was only opened
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} cannot be read: {error}", _REMEDY) from error
    return _to_tensor(upright, mode, name, _tiff_tags(image))


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """What a TIFF file says of its pixels, by number; nothing of other files and of copies."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


def _to_tensor(image: Image.Image, mode: Mode, name: str, tags: Mapping[int, Any]) -> Tensor:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bits(image, name, tags)
    elif image.mode in ("F", "LAB", "HSV"):
        raise UserError(
            f"{name} has pixels of the kind {image.mode}, which are not read",
            "convert it to 8-bit grey or RGB",
        )
    if image.mode == "La":
        image = image.convert("LA")  # from "La", whose grey is darkened by its alpha, no other way
    if image.has_transparency_data:
        overlay = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, overlay).convert("RGB")
    if mode == "L" and image.mode not in ("1", "L"):
        image = image.convert("RGB")  # Pillow has no direct way from CMYK and others to grey
    return _pixels(image if image.mode == mode else image.convert(mode))


def _from_16_bits(image: Image.Image, name: str, tags: Mapping[int, Any]) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{name} has pixels outside 0..65535, whose range is not known",
            "convert it to 8-bit grey or RGB",
        )
    # unlike those of 8 bits, Pillow leaves these two kinds of TIFF as they are in the file
    brightest = 4095 if tags.get(_BITS_TAG) == (12,) else 65535
    if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        values = brightest - values
    return Image.fromarray(((510 * values + brightest) // (2 * brightest)).astype(np.uint8))


def _pixels(image: Image.Image) -> Tensor:
    """C×H×W uint8 of an "L" or "RGB" image."""
    values = torch.from_numpy(np.array(image))
    if values.ndim == 2:
        return values.unsqueeze(0)
    return values.permute(2, 0, 1).contiguous()
