"""Open an image file as an upright RGB image, or say what is wrong with the file."""

import contextlib
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.data.image_folder import shorten
from utils.errors import InputError, brief

# Formats that are read, whatever the file's extension. For others, such as EPS, Pillow would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

# Errors that Pillow raises on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, struct.error, MemoryError)


def open_image(path: str | Path, draft_size: int | None = None) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    Ordinary files (modes RGB, RGBA, L, P) give the same result as `Image.open(path).convert("RGB")`; transparency is
    dropped. CMYK is converted, 16-bit and float greys are scaled to 8 bits instead of clipped, and the EXIF orientation
    is applied.

    Args:
        path: the image file.
        draft_size: decode a JPEG at a half, quarter or eighth of its size, with both sides at least this many pixels.
            This saves memory if a very large image is to be shrunk anyway. None: full size.

    Raises:
        InputError: the file is missing, not a regular file, not in one of FORMATS, truncated or damaged, or has more
            pixels than Pillow considers safe (twice `PIL.Image.MAX_IMAGE_PIXELS`, 179 million).
    """
    with _opened(path) as image:
        if draft_size:
            image.draft(image.mode, (draft_size, draft_size))
        image.load()
        with contextlib.suppress(*_DAMAGED):  # a damaged EXIF block says nothing about the picture
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image; only the file's header is read.

    Raises:
        InputError: as in `open_image`, except for damage after the header.
    """
    with _opened(path) as image:
        orientation = 1
        with contextlib.suppress(*_DAMAGED):
            orientation = image.getexif().get(0x0112, 1)
        return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a file with Pillow; every error, here or in the `with` block, becomes an InputError."""
    name = shorten(path, 300)
    if not os.path.isfile(path):  # opening a pipe would block
        what = "is not a regular file" if os.path.exists(path) else "no such image file"
        raise InputError(f"{name}: {what}; put the picture there or leave it out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large sizes, odd metadata and palettes; all harmless
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except Image.DecompressionBombError:
        raise InputError(f"{name}: image has too many pixels to be opened safely; make a smaller copy of it") from None
    except UnidentifiedImageError:
        problem = f"unreadable image ({_what_it_is(path)}; {', '.join(FORMATS)} are read)"
        raise InputError(f"{name}: {problem}; convert it, download it again or leave it out") from None
    except _DAMAGED as error:
        problem = f"{type(error).__name__}: {brief(error)}"[:120]
        raise InputError(f"{name}: unreadable image ({problem}); download it again or leave it out") from None


def _what_it_is(path: str | Path) -> str:
    """Guess from its first bytes what a file is that is not a readable image."""
    with open(path, "rb") as file:
        beginning = file.read(512)
    if not beginning:
        return "it is empty"
    if beginning.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    Image.init()
    for kind in (*FORMATS, *Image.ID):
        accept = Image.OPEN[kind][1]
        with contextlib.suppress(Exception):  # Pillow's tests can fail on other files
            if accept is not None and accept(beginning[:16]) is True:
                return f"it is a damaged {kind}" if kind in FORMATS else f"it looks like {kind}"
    return "it is not an image"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode != "F" and not image.mode.startswith("I"):
        return image.convert("RGB")
    grey = np.nan_to_num(np.asarray(image).astype(np.float64))  # 16 or 32 bits; convert() would clip them at 255
    if image.mode == "F" and grey.max(initial=0) <= 1:
        grey *= 255
    elif image.mode.startswith("I;16") or 255 < grey.max(initial=0) < 2**16:
        grey //= 256
    elif grey.max(initial=0) > 255:
        grey *= 255 / grey.max()
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
