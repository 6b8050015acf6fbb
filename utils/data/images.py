"""Image files: find one by its name, open it as an upright RGB image, list those of a folder.

Names are matched to files in preprocessing (preprocess/image_names.py), which writes the files' names into the JSON
splits. Here `root / image_name` is opened, with no more than the published code's fall-back. No torch here.
"""

import contextlib
import io
import os
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.errors import InputError, brief

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

# Folders that macOS, storage devices and Windows add to a user's own.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")

# Formats that are read, whatever the file's extension. For others, such as EPS, Pillow would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

# Pillow refuses images of more than twice as many pixels: a small file can claim any size.
Image.MAX_IMAGE_PIXELS = 200_000_000

_END_OF_JPEG = b"\xff\xd9"

# Errors that Pillow raises on damaged files.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, struct.error, MemoryError)


def open_image(path: str | Path, draft_size: int | None = None, apply_orientation: bool = True) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    Ordinary files (modes RGB, RGBA, L, P) give the same result as `Image.open(path).convert("RGB")`; transparency is
    dropped. CMYK is converted, 16-bit and float greys are scaled to 8 bits instead of clipped, and the EXIF orientation
    is applied. A JPEG that lacks nothing but its end marker is read as if it had one.

    Args:
        path: the image file.
        draft_size: decode a JPEG at a half, quarter or eighth of its size, with both sides at least this many pixels.
            This saves memory if a very large image will be shrunk anyway. None: full size.
        apply_orientation: False ignores the EXIF orientation, as the published code does. Pillow itself rotates TIFF
            files in any case.

    Raises:
        InputError: the file is missing, not a regular file, not in one of FORMATS, truncated or damaged, or has more
            than 400 million pixels (twice `PIL.Image.MAX_IMAGE_PIXELS`).
    """
    with _opened(path) as image:
        try:
            _load(image, draft_size)
        except OSError:
            content = _with_end_marker(path)
            if content is None:
                raise
            image = Image.open(io.BytesIO(content))
            _load(image, draft_size)
        if apply_orientation:
            with contextlib.suppress(*_DAMAGED):  # a damaged EXIF block says nothing about the pixels
                ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image)


def image_size(path: str | Path, apply_orientation: bool = True) -> tuple[int, int]:
    """Width and height in pixels of `open_image`'s result; only the file's header is read.

    Raises:
        InputError: as in `open_image`, except for damage after the header.
    """
    with _opened(path) as image:
        size, orientation = image.size, 1
        with contextlib.suppress(*_DAMAGED):
            orientation = image.getexif().get(0x0112, 1)
        if image.format == "TIFF":  # new versions of Pillow rotate its size already here
            size, apply_orientation = (image.tag_v2[256], image.tag_v2[257]), True
        return size[::-1] if apply_orientation and orientation in (5, 6, 7, 8) else size


def _load(image: Image.Image, draft_size: int | None) -> None:
    if draft_size:
        image.draft(image.mode, (draft_size, draft_size))
    image.load()


def _with_end_marker(path: str | Path) -> bytes | None:
    """The content of a JPEG file with the end marker that it lacks; None if it lacks more than that, or is not a JPEG.

    Nothing else is missing if the pixels do not depend on what follows the last byte. A file that ends in zeros was
    not downloaded completely.
    """
    content = Path(path).read_bytes().rstrip(b"\xff")  # the file may contain the marker's first half
    if content.endswith(bytes(2)):
        return None
    pixels = set()
    for following in (b"", b"\xa5" * 1000):
        try:
            with Image.open(io.BytesIO(content + following + _END_OF_JPEG), formats=["JPEG"]) as image:
                pixels.add(zlib.crc32(np.asarray(image)))
        except _DAMAGED:
            return None
    return content + _END_OF_JPEG if len(pixels) == 1 else None


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a file with Pillow; every error, here or in the `with` block, becomes an InputError."""
    name = shorten(path, 300)
    if not os.path.isfile(path):  # opening a pipe would block
        what = "is not a regular file" if os.path.exists(path) else "no such image file"
        raise InputError(f"{name}: {what}; put the image there or leave it out")
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # about large sizes, odd metadata and palettes; all harmless
            Image.open(path, formats=FORMATS) as image,
        ):
            yield image
    except Image.DecompressionBombError:
        raise InputError(f"{name}: image has too many pixels to be opened safely; make a smaller copy of it") from None
    except UnidentifiedImageError:
        beginning = Path(path).read_bytes()[:512].lstrip().lower()
        reason = "damaged, or not in a format that is read"
        if not beginning:
            reason = "it is empty"
        elif beginning.startswith((b"<!doctype", b"<html")):
            reason = "it is a web page"
        raise InputError(
            f"{name}: unreadable image ({reason}; {', '.join(FORMATS)} are read); convert it, download it again or leave "
            "it out"
        ) from None
    except _DAMAGED as error:
        problem = f"{type(error).__name__}: {brief(error)}"[:120]
        raise InputError(f"{name}: unreadable image ({problem}); download it again or leave it out") from None


def to_rgb(image: Image.Image) -> Image.Image:
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


def find_image(root: Path, image_name: str) -> Path | None:
    """The file of `image_name` ("<art_style>/<painting>.jpg") under `root`, or None if there is none.

    As in the published code a second name is tried, see `fallback_name`. SAEA's files name images without extension.
    """
    names = [image_name, fallback_name(image_name)]
    if not image_name.lower().endswith(EXTENSIONS):
        names += [image_name + extension for extension in EXTENSIONS]
    for name in names:
        if os.path.isfile(path := os.path.join(root, name)):
            return Path(path)
    return None


def fallback_name(image_name: str) -> str:
    """The published code's second spelling of a name: in Unicode's composed form, with what is not ASCII spelled out.

    Combining marks become "#U" and four hex digits, other characters up to U+00FF "#U00" and two, and those above a
    backslash, "u" and four.
    """

    def spelled(letter: str) -> str:
        code = ord(letter)
        if unicodedata.category(letter) in ("Mn", "Mc"):
            return f"#U{code:04x}"
        return letter if code < 128 else f"#U{code:04x}" if code < 256 else f"\\u{code:04x}"

    return "".join(map(spelled, unicodedata.normalize("NFC", image_name)))


def split_name(name: str) -> tuple[str, str]:
    """Split a name from its image extension; any other "extension" (as in `st.-george`) is part of the name."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if dot and (dot + extension).lower() in EXTENSIONS else (name, "")


def is_system_file(name: str) -> bool:
    """Whether a file or folder is hidden (such as macOS' "._a.jpg") or one of SYSTEM_FOLDERS, which hold no images."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def shorten(text: object, length: int = 100) -> str:
    """The first `length` characters of a name, for messages."""
    text = str(text)
    return text if len(text) <= length else f"{text[:length]}..."


def image_files(folder: Path, within: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """The images in a folder and the folders below it, in the order of their paths. Nothing is opened.

    Images are recognised by their suffix; hidden and system files are left out (`is_system_file`). Links are followed,
    but not to a folder that contains them. A dangling link counts as an image if it has an image's suffix or none, as the
    link may have led to a folder of images.

    Args:
        folder: the folder to search.
        within: device and inode of the folders that contain it.

    Raises:
        OSError: a folder cannot be listed.
    """
    status = os.stat(folder)
    place = (status.st_dev, status.st_ino)
    if place in within:
        return
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if is_system_file(name):
            continue
        if os.path.isdir(path):
            yield from image_files(path, within | {place})
        elif path.suffix.lower() in EXTENSIONS and os.path.isfile(path):
            yield path
        elif path.suffix.lower() in ("", *EXTENSIONS) and not os.path.exists(path):
            yield path


def list_images(places: list[Path]) -> list[Path]:
    """The given files, and the images in the given folders (see `image_files`); each once.

    Raises:
        InputError: a file or folder does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            images = list(image_files(place))
            if not images:
                raise InputError(f"{brief(place)}: no image in this folder ({', '.join(EXTENSIONS)}); name another")
            found += images
        elif os.path.lexists(place):
            found.append(place)
        else:
            raise InputError(f"{brief(place)}: no such image or folder; check the name")
    return list(dict.fromkeys(found))
