"""From an annotation's `<art_style>/<painting>.jpg` to the file on disk, and from the file to an RGB image.

WikiArt archives spell the same name in many ways: composed and decomposed Unicode, `#U00e9` for an accented letter
(what unzip writes under a C locale), UTF-8 taken for another encoding, ` (1)` from a second download, other case,
another extension. All scripts and the data set find their images here, so that they agree.
"""

import contextlib
import csv
import os
import re
import struct
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from utils.errors import InputError
from utils.files import atomic_path

EXTENSIONS = (".jpg", ".jpeg", ".png")

# Damaged in the public WikiArt archive itself: no other download of it helps.
KNOWN_CORRUPT = (
    "rembrandt_woman-standing-with-raised-hands",
    "vincent-van-gogh_l-arlesienne-portrait-of-madame-ginoux-1890",
)

_ESCAPE = re.compile(r"(?:#[Uu]|\\[uU])(?![dD][89a-fA-F])([0-9a-fA-F]{4})")
_COPY = re.compile(r"\s+\(\d+\)$")
_NUMBER = re.compile(r"\s*\((\d+)\)$")

# What Pillow raises on damaged files, whatever the format.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, struct.error, MemoryError)


class ManifestRow(NamedTuple):
    """One artwork's image: its file, the size in pixels (empty when unknown) and what is wrong (empty: nothing)."""

    image_name: str
    found_path: str = ""
    width: int | str = ""
    height: int | str = ""
    problem: str = ""


class ImageFolder:
    """Finds the images of annotations under `root`.

    A folder is listed once, when it is first asked about; files that appear later are not seen.

    Raises:
        InputError: `root` is no folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such image folder; give the one that holds <art_style>/<painting>.jpg")
        self._real_root = Path(os.path.realpath(self.root))
        self._listings: dict[Path, _Listing] = {}

    def find(self, image_name: str) -> Path | None:
        """The file of `image_name` ("<art_style>/<painting>.jpg"), or None when there is none.

        Of several files the one spelled most alike is taken: the name as it is, then NFC, NFD, escapes, mojibake, a
        copy's ` (1)`, other case, and under each of these the annotation's own extension first.

        Raises:
            InputError: the name, or a link it leads to, is outside the root.
        """
        return next(iter(self.candidates(image_name)), None)

    def candidates(self, image_name: str) -> list[Path]:
        """All files that match `image_name`, the best first; more than one means that the name is ambiguous.

        Raises:
            InputError: the name, or a link it leads to, is outside the root.
        """
        parts = PurePosixPath(image_name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in image_name:
            raise InputError(f"image name {image_name!r}: leads out of {self.root}; must be <art_style>/<painting>.jpg")
        folders = [self.root]
        for part in parts[:-1]:
            folders = [folder / name for folder in folders for name in self._listing(folder).matching_folders(part)]
        found = [folder / name for folder in folders for name in self._listing(folder).matching_files(parts[-1])]
        for path in found:
            self._check_inside(path)
        return found

    def _listing(self, folder: Path) -> "_Listing":
        if folder not in self._listings:
            self._check_inside(folder)
            self._listings[folder] = _Listing(folder)
        return self._listings[folder]

    def _check_inside(self, path: Path) -> None:
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(self._real_root):
            raise InputError(f"{path}: is a link out of {self.root}; put a copy in its place")


class _Listing:
    """The files and folders directly inside one folder, by their most general spelling."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, list[str]] = {}
        self.folders: dict[str, list[str]] = {}
        self.numbered: dict[str, list[str]] = {}  # files called "x(1)" or "x (1)", by "x"
        for entry in os.scandir(folder):
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                continue
            if is_folder:
                self.folders.setdefault(_spellings(entry.name)[-1], []).append(entry.name)
            elif Path(entry.name).suffix.lower() in EXTENSIONS and is_file:
                stem = _split(entry.name)[0]
                self.files.setdefault(_spellings(stem)[-1], []).append(entry.name)
                if _NUMBER.search(stem):
                    self.numbered.setdefault(_spellings(_NUMBER.sub("", stem))[-1], []).append(entry.name)

    def matching_folders(self, name: str) -> list[str]:
        return sorted(self.folders.get(_spellings(name)[-1], []), key=partial(_unlikeness, name))

    def matching_files(self, name: str) -> list[str]:
        stem = _split(name)[0]
        names = self.files.get(_spellings(stem)[-1])
        if not names:
            number = _NUMBER.search(stem)
            numbered = self.numbered.get(_spellings(_NUMBER.sub("", stem))[-1], [])
            names = [name for name in numbered if not number or _NUMBER.search(_split(name)[0])[1] == number[1]]
        return sorted(names, key=partial(_unlikeness, name))


def _split(name: str) -> tuple[str, str]:
    """Name and image extension; any other "extension" (as in `st.-george`) belongs to the name."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if dot and (dot + extension).lower() in EXTENSIONS else (name, "")


def _spellings(name: str) -> tuple[str, ...]:
    """`name` as it is, then ever more general spellings; two names match when their last ones are equal.

    "x(1)" stays apart from "x": WikiArt gives artworks of one title such names. A blank before the bracket is a copy's.
    """
    if name.isascii() and "#" not in name and "\\" not in name:  # nearly all names: spares the work
        composed = unescaped = repaired = name
    else:
        composed = unicodedata.normalize("NFC", name)
        unescaped = unicodedata.normalize("NFC", _ESCAPE.sub(lambda match: chr(int(match[1], 16)), composed))
        repaired = _repair(unescaped)
    original = _COPY.sub("", repaired)
    return name, composed, unescaped, repaired, original, unicodedata.normalize("NFC", original.casefold())


def _unlikeness(wanted: str, name: str) -> tuple:
    """Sorts the names that match `wanted`: by the first spelling in which they agree, then by extension."""
    (wanted_stem, wanted_extension), (stem, extension) = _split(wanted), _split(name)
    pairs = zip(_spellings(wanted_stem), _spellings(stem), strict=True)
    level = next((index for index, (ours, theirs) in enumerate(pairs) if ours == theirs), len(_spellings("")))
    decomposed = stem != unicodedata.normalize("NFC", stem)
    return level, extension != wanted_extension, extension.lower() != wanted_extension.lower(), decomposed, name


def _repair(text: str) -> str:
    """Undo mojibake: UTF-8 bytes read as latin-1, cp1252 or cp437 (unzip does), or latin-1 bytes in a UTF-8 name."""
    for to_bytes in (_latin_bytes, partial(str.encode, encoding="cp437")):
        try:
            return unicodedata.normalize("NFC", to_bytes(text).decode("utf-8"))
        except UnicodeError:
            continue
    if any("\udc80" <= character <= "\udcff" for character in text):  # how Python shows bytes that are no UTF-8
        raw = text.encode("utf-8", errors="surrogateescape")
        return unicodedata.normalize("NFC", raw.decode("cp1252", errors="replace"))
    return text


def _latin_bytes(text: str) -> bytes:
    """The bytes of cp1252, and of latin-1 where cp1252 has no character (Windows reads those five bytes so, too)."""
    encoded = bytearray()
    for character in text:
        try:
            encoded += character.encode("cp1252")
        except UnicodeEncodeError:
            encoded += character.encode("latin-1")
    return bytes(encoded)


def open_image(path: str | Path, draft_size: int | None = None) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    Ordinary files (RGB, RGBA, L, P) give exactly what `Image.open(path).convert("RGB")` gives, so transparency is
    dropped. CMYK is converted, 16-bit and float greys are scaled to 8 bits instead of clipped, and the EXIF
    orientation is applied.

    Args:
        path: the image file.
        draft_size: a JPEG may be decoded at a half, quarter or eighth of its size, as long as both sides stay at least
            this many pixels: saves the memory of gigantic pictures that are about to be shrunk anyway.

    Raises:
        InputError: the file is missing, no image, truncated or damaged, or has more pixels than Pillow deems safe
            (twice `PIL.Image.MAX_IMAGE_PIXELS`, 179 million).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes below the limit, odd metadata, palettes: not the user's concern
            with Image.open(path) as image:
                if draft_size:
                    image.draft(image.mode, (draft_size, draft_size))
                image.load()
                with contextlib.suppress(*_DAMAGED):  # a damaged EXIF block says nothing about the picture
                    ImageOps.exif_transpose(image, in_place=True)
                return _to_rgb(image)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: image has too many pixels to be opened safely; make a smaller copy of it") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: unreadable image ({_one_line(error)}); download it anew or leave it out") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from the file's header alone.

    Raises:
        InputError: as `open_image`, as far as the header tells.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                orientation = 1
                with contextlib.suppress(*_DAMAGED):
                    orientation = image.getexif().get(0x0112, 1)
                return image.size[::-1] if orientation in (5, 6, 7, 8) else image.size
    except Image.DecompressionBombError:
        raise InputError(f"{path}: image has too many pixels to be opened safely; make a smaller copy of it") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: unreadable image ({_one_line(error)}); download it anew or leave it out") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode != "F" and not image.mode.startswith("I"):
        return image.convert("RGB")
    grey = np.nan_to_num(np.asarray(image).astype(np.float64))  # 16 or 32 bits, which convert() would clip at 255
    if image.mode == "F" and grey.max(initial=0) <= 1:
        grey *= 255
    elif image.mode.startswith("I;16") or 255 < grey.max(initial=0) < 2**16:
        grey //= 256
    elif grey.max(initial=0) > 255:
        grey *= 255 / grey.max()
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]


def describe(folder: ImageFolder, image_name: str) -> ManifestRow:
    """Look one image up: its path, or a problem: "missing ..." when there is no file, "ambiguous ..." when several.

    A file that differs from the name by a number in brackets without a blank, "x(1)" for "x", is the last resort and
    called ambiguous, since it may be another artwork of the same title.
    """
    try:
        paths = folder.candidates(image_name)
    except InputError as error:
        return ManifestRow(image_name, problem=f"unreadable ({error})")
    if not paths:
        return ManifestRow(image_name, problem=f"missing{_remark(image_name)}")
    problem = ""
    if len(paths) > 1:
        problem = f"ambiguous (also {', '.join(path.name for path in paths[1:])})"
    elif _spellings(_split(PurePosixPath(image_name).name)[0])[-1] != _spellings(_split(paths[0].name)[0])[-1]:
        problem = "ambiguous (its number in brackets may be another artwork's)"
    return ManifestRow(image_name, str(paths[0]), problem=problem)


def measure(row: ManifestRow, decode: bool = False) -> ManifestRow:
    """Add the picture's size to a row of `describe`, or the problem "unreadable ...".

    With `decode` the whole picture is read, which finds truncated files; without, only its header.
    """
    if not row.found_path:
        return row
    try:
        width, height = open_image(row.found_path).size if decode else image_size(row.found_path)
    except InputError as error:
        return unreadable(row, error)
    return row._replace(width=width, height=height)


def unreadable(row: ManifestRow, error: InputError) -> ManifestRow:
    """The row with the problem "unreadable (...)": why, or that the file is known to be corrupt in the public archive."""
    return row._replace(width="", height="", problem=f"unreadable{_remark(row.image_name) or f' ({error})'}")


def is_known_corrupt(image_name: str) -> bool:
    """Whether this artwork's file is one of the two that are damaged in the public WikiArt archive."""
    return _spellings(_split(PurePosixPath(image_name).name)[0])[-1] in KNOWN_CORRUPT


def _remark(image_name: str) -> str:
    return " (known to be corrupt in the public WikiArt archive)" if is_known_corrupt(image_name) else ""


def manifest(
    folder: ImageFolder, image_names: Iterable[str], path: str | Path, decode: bool = False, jobs: int = 1
) -> Counter[str]:
    """Look up and measure every image and write a csv: image_name, found_path, width, height, problem.

    Args:
        folder: where the images are.
        image_names: "<art_style>/<painting>.jpg", one row each, in this order.
        path: the csv file.
        decode: read every picture whole, so that truncated ones are found.
        jobs: processes to share the work.

    Returns:
        How many rows have which problem: "missing", "unreadable", "ambiguous", and "" for none.
    """
    rows = [describe(folder, name) for name in image_names]
    look = partial(measure, decode=decode)
    progress = partial(tqdm, total=len(rows), desc="images", unit="file", mininterval=1)
    if jobs <= 1:
        return write_manifest(path, progress(map(look, rows)))
    with ProcessPoolExecutor(jobs) as pool:
        return write_manifest(path, progress(pool.map(look, rows, chunksize=64)))


def write_manifest(path: str | Path, rows: Iterable[ManifestRow]) -> Counter[str]:
    """Write manifest rows as csv (atomically); returns how many have which problem, by its first word ("" for none)."""
    problems: Counter[str] = Counter()
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(ManifestRow._fields)
            for row in rows:
                problems[row.problem.partition(" ")[0]] += 1
                writer.writerow(row)
    return problems
