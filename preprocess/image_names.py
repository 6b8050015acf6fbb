"""Find the file of an annotation's `<art_style>/<painting>.jpg`, in whatever spelling the archive has its name; image ids.

Only preprocessing does this: resize_wikiart.py names its files as the annotations do, and build_splits.py writes the
files' names into the JSON splits. `spellings` decides which names are equal. `ReducedName` is for names that have lost
letters: it gives hints, which count only if a single file of a folder fits.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from utils.data.images import EXTENSIONS, is_system_file, shorten, split_name
from utils.errors import InputError

# The steps of `spellings`, in order.
EQUAL = ("exact name", "Unicode form", "escapes undone", "mojibake undone", "copy's number dropped", "upper/lower case")

# Artists whose names are damaged in WikiArt's own list and cannot be decoded. The first eleven are UTF-8 that was read
# as latin-1 and then lower-cased; the others have lost their apostrophe. The undamaged letters identify the artist.
DAMAGED_ARTISTS = (
    "andré-lhote",
    "antónio-de-carvalho-da-silva-porto",
    "arnold-böcklin",
    "eugène-grasset",
    "ferdinand-georg-waldmüller",
    "félix-del-marle",
    "georges-lacombe\xa0",
    "grégoire-michonze",
    "joaquín-sorolla",
    "mestre-ataíde",
    "roger-bissière",
    "allan-d'arcangelo",
    "georgia-o'keeffe",
    "pierre-paul-prud'hon",
)
_UNDAMAGED = [re.sub("[^a-z-]", "", artist) for artist in DAMAGED_ARTISTS]
_DAMAGED = re.compile("|".join(f"({re.sub('[^a-z-]', '.{,64}?', artist)}_+)" for artist in DAMAGED_ARTISTS), re.DOTALL)

_ESCAPE = re.compile(r"(?:#U|#u|\\U|\\u|%u)(?![dD][89a-fA-F])([0-9a-fA-F]{4})")
_LOWERED = re.compile("[\xe2-\xff](?=[\x80-\xbf])")  # first byte of a UTF-8 pair, read as latin-1 and lower-cased
_ODD = re.compile("[^a-z0-9. _-]+")
_REPLACED = re.compile("[^a-z0-9. -]+")
_LOST = re.compile("[a-z0-9. _?\ufffd-]*")  # a name after odd characters were dropped or replaced
_APOSTROPHES = str.maketrans(dict.fromkeys("'’‘‛ʼ′´`\xad\u200b\ufeff") | {"\xa0": " "})


@lru_cache(4096)  # a look-up compares the same names several times
def spellings(stem: str) -> tuple[str, ...]:
    """`stem` itself, then more and more general spellings, one per step in EQUAL.

    Two names are equal if their last spellings are equal. "x(1)" differs from "x": WikiArt gives such names to artworks
    of the same title. "x (1)", with a space, is a copy of "x".
    """
    if stem.isascii() and not any(mark in stem for mark in "#\\%"):  # nearly all names: nothing to decode
        composed = unescaped = repaired = stem
    else:
        composed = unicodedata.normalize("NFC", stem)
        unescaped = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), composed)
        for _ in range(2):  # archives are packed and unpacked more than once
            unescaped = unquote(unescaped, errors="surrogateescape")
        unescaped = unicodedata.normalize("NFC", unescaped)
        repaired = _repair(unescaped)
    base, number = split_number(repaired)
    original = base.rstrip() if number and base.endswith(" ") else repaired
    return stem, composed, unescaped, repaired, original, unicodedata.normalize("NFC", original.casefold())


def split_number(stem: str) -> tuple[str, str]:
    """ "x(1)" -> ("x", "1"); other names -> (stem, "")."""
    base, bracket, number = stem[:-1].rpartition("(") if stem.endswith(")") else (stem, "", "")
    return (base, number) if bracket and base and number.isascii() and number.isdigit() else (stem, "")


def _repair(text: str) -> str:
    """Undo mojibake: UTF-8 read as another encoding, up to three times over, or latin-1 bytes in a UTF-8 name."""
    for _ in range(3):
        for to_bytes in (_latin_bytes, _lowered_bytes, partial(str.encode, encoding="cp437")):
            try:
                text = unicodedata.normalize("NFC", to_bytes(text).decode("utf-8"))
                break
            except UnicodeError:
                continue
        else:
            break
        if text.isascii():
            break
    if any("\udc80" <= character <= "\udcff" for character in text):  # Python's form of bytes that are not UTF-8
        raw = text.encode("utf-8", errors="surrogateescape")
        return unicodedata.normalize("NFC", raw.decode("cp1252", errors="replace"))
    return text


def _latin_bytes(text: str) -> bytes:
    """Encode as cp1252, or as latin-1 where cp1252 has no character; Windows decodes those five bytes likewise."""
    encoded = bytearray()
    for character in text:
        try:
            encoded += character.encode("cp1252")
        except UnicodeEncodeError:
            encoded += character.encode("latin-1")
    return bytes(encoded)


def _lowered_bytes(text: str) -> bytes:
    """Like `_latin_bytes`, for a text that was lower-cased after it had been decoded wrongly."""
    return _latin_bytes(_LOWERED.sub(lambda match: chr(ord(match[0]) - 32), text))


class ReducedName(NamedTuple):
    """Reduced forms of a damaged name. If two names have an equal form, they may be the same name.

    Odd characters are those other than ASCII letters, digits, spaces, dots, underscores and hyphens.

    plain: accents and apostrophes removed. replaced: every run of odd characters replaced by "_". dropped: odd
    characters removed ("" if less than half of the name remains). odd: whether the name has odd characters; if two
    names agree in `replaced` or `dropped`, exactly one of them must have odd characters, because the other one has lost
    them. artist: whether the artist is one of DAMAGED_ARTISTS.
    """

    plain: str
    replaced: str
    dropped: str
    odd: bool
    artist: bool


def reduce_name(stem: str) -> ReducedName:
    """The reduced forms of a name in lower case, e.g. the last of `spellings`."""
    name = _with_undamaged_artist(stem)
    plain = name.translate(_APOSTROPHES)
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    plain = plain.strip().replace(" _", "_")
    dropped = _ODD.sub("", name)
    if 2 * len(dropped) < len(name):
        dropped = ""
    return ReducedName(plain, _REPLACED.sub("_", name), dropped, not _LOST.fullmatch(name), bool(_DAMAGED.match(stem)))


def identity(stem: str) -> str:
    """A form that is the same for all spellings of an artwork's name. A copy's number is kept; nothing is guessed."""
    return _with_undamaged_artist(spellings(stem)[3].casefold())


def _with_undamaged_artist(stem: str) -> str:
    """Replace a damaged artist at the start of a name by the artist's ASCII letters."""
    artist = _DAMAGED.match(stem)
    return f"{_UNDAMAGED[artist.lastindex - 1]}_{stem[artist.end() :]}" if artist else stem


def image_id(art_style: str, painting: str) -> str:
    """The image id of an artwork: a positive 63-bit integer as a string, equal for all Unicode spellings of the name.

    It is the first 8 bytes (big-endian) of the SHA-256 of "art_style/painting" in NFC and UTF-8, shifted right by one
    bit.
    """
    name = unicodedata.normalize("NFC", f"{art_style}/{painting}").encode()
    return str(int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1)


# ---- files -----------------------------------------------------------------------------------------------------------


# How a file was found, the most reliable way first. All but the first count as "spelled differently".
EXACT, EXTENSION = EQUAL[0], "another extension"
GUESSES = ("artist's damaged name", "letters without accents", "odd characters replaced", "odd characters dropped")
FOUND_BY = (EXACT, EXTENSION, *EQUAL[1:], *GUESSES)


class Found(NamedTuple):
    """The files that match a name, best first; how the best one was found; if none, why candidates were rejected."""

    paths: list[Path]
    found_by: str = ""
    reason: str = ""


class ImageFolder:
    """Find the images of annotations under `root`.

    Each folder is listed once, at its first look-up; files that appear later are not found. Links are followed, also
    out of `root`: users keep images on another disk, or in the store of git-annex or DVC. Hidden files are not found
    (see `is_system_file`).

    Raises:
        InputError: `root` is not a folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{root}: no such image folder; give the one that contains <art_style>/<painting>.jpg")
        self._listings: dict[Path, _Listing] = {}

    def look_up_all(self, image_names: Sequence[str]) -> list[Found]:
        """`look_up` for a list of names; in addition, a guess never takes a file that fits another name of the list."""
        results = [self.look_up(name) for name in image_names]
        names_of: dict[Path, list[tuple[int, str]]] = {}  # file -> rank and name of those that it was found for
        for name, found in zip(image_names, results, strict=True):
            if found.paths:
                names_of.setdefault(found.paths[0], []).append((FOUND_BY.index(found.found_by), name))
        for index, (name, found) in enumerate(zip(image_names, results, strict=True)):
            if not found.paths or len(names_of[found.paths[0]]) == 1 or found.found_by == EXACT:
                continue
            rank, file = FOUND_BY.index(found.found_by), found.paths[0]
            for other_rank, other in names_of[file]:
                if other_rank <= rank and _identity(other) != _identity(name):
                    results[index] = Found([], reason=f"{shorten(file.name)} could also be {shorten(other)}")
                    break
        return results

    def look_up(self, image_name: str) -> Found:
        """The files of `image_name` ("<art_style>/<painting>.jpg"); more than one means that the name is ambiguous.

        If several files match, the most similar spelling comes first: the exact name, another extension, then the
        spellings in EQUAL. If none matches, the name may be damaged, and the rules in GUESSES are tried; they need a
        single matching file.
        """
        parts = PurePosixPath(image_name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            return Found([], reason="the name leads out of the image folder; it must be <art_style>/<painting>.jpg")
        name, listings = parts[-1], self._listings_of(parts[:-1])
        files = [(listing.folder, file) for listing in listings for file in listing.equal(name)]
        if files:
            return Found([folder / file for folder, file in files], _spelled_by(name, files[0][1]))
        found_by, files = _guess(name, listings)
        if len({split_name(file)[0] for _, file in files}) > 1:
            return Found([], reason=f"could be {' or '.join(shorten(file) for _, file in files[:3])}")
        if not files:
            return Found([], reason=broken_link(self.root / image_name))
        return Found([folder / file for folder, file in files], found_by)

    def _listings_of(self, folder_names: Sequence[str]) -> list["_Listing"]:
        """The listings of all folders that fit these names, one inside the other from the root on."""
        folders = [self.root]
        for name in folder_names:
            folders = [
                folder / fitting for folder in folders for fitting in self._listing(folder).matching_folders(name)
            ]
        return [self._listing(folder) for folder in folders]

    def _listing(self, folder: Path) -> "_Listing":
        if folder not in self._listings:
            self._listings[folder] = _Listing(folder)
        return self._listings[folder]


class _Listing:
    """The files and folders directly inside one folder. Tables for misspelled names are built when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folders: list[str] = []
        self.stems: dict[str, str] = {}  # file name -> name without extension
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if is_system_file(entry.name):
                continue
            if entry.is_dir():
                self.folders.append(entry.name)
            elif entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
                self.stems[entry.name] = split_name(entry.name)[0]

    def matching_folders(self, name: str) -> list[str]:
        if name in self.folders:
            return [name, *(other for other in self.folders if other != name and other.casefold() == name.casefold())]
        wanted = spellings(name)[-1]
        return [other for other in self.folders if spellings(other)[-1] == wanted]

    def equal(self, name: str) -> list[str]:
        """The files whose name equals `name` in the most general of `spellings`, most similar first."""
        stem = split_name(name)[0]
        names = self._by_spelling.get(spellings(stem)[-1], [])
        base, number = split_number(stem)
        if number and base.endswith(" "):  # the annotation itself names a numbered copy
            names = [other for other in names if split_number(self.stems[other])[1] == number]
        return names if len(names) == 1 else sorted(names, key=partial(_unlikeness, name))

    def with_equal_form(self, form: str, value: str) -> list[tuple[str, ReducedName]]:
        """The files whose name has this value in one form of ReducedName."""
        return self._by_form[form].get(value, [])

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for name, stem in self.stems.items():
            table.setdefault(spellings(stem)[-1], []).append(name)
        return table

    @cached_property
    def _by_form(self) -> dict[str, dict[str, list[tuple[str, ReducedName]]]]:
        tables: dict[str, dict[str, list[tuple[str, ReducedName]]]] = {"plain": {}, "replaced": {}, "dropped": {}}
        for name, stem in self.stems.items():
            reduced = reduce_name(spellings(stem)[-1])
            for form, table in tables.items():
                table.setdefault(getattr(reduced, form), []).append((name, reduced))
        return tables


def _guess(name: str, listings: list[_Listing]) -> tuple[str, list[tuple[Path, str]]]:
    """The first rule in GUESSES that finds files for a damaged name, and these files with their folders."""
    wanted = reduce_name(spellings(split_name(name)[0])[-1])
    rules = (("plain", GUESSES[0] if wanted.artist else GUESSES[1]), ("replaced", GUESSES[2]), ("dropped", GUESSES[3]))
    for form, rule in rules:
        value = getattr(wanted, form)
        files = [
            (listing.folder, file)
            for listing in listings
            for file, reduced in listing.with_equal_form(form, value)
            if value and (form == "plain" or wanted.odd != reduced.odd)
        ]
        if files:
            return rule, files
    return "", []


def _spelled_by(wanted: str, name: str) -> str:
    """The first spelling in which two equal names agree: one of FOUND_BY."""
    level, extension, *_ = _unlikeness(wanted, name)
    return EXTENSION if level == 0 and extension else EQUAL[level]


def _unlikeness(wanted: str, name: str) -> tuple:
    """A sort key for names that match `wanted`: by the first spelling in which they agree, then by extension."""
    if wanted == name:
        return (0, False)
    (wanted_stem, wanted_extension), (stem, extension) = split_name(wanted), split_name(name)
    pairs = zip(spellings(wanted_stem), spellings(stem), strict=True)
    return (
        next(level for level, (wanted_spelling, spelling) in enumerate(pairs) if wanted_spelling == spelling),
        extension != wanted_extension,
        extension.lower() != wanted_extension.lower(),
        not unicodedata.is_normalized("NFC", stem),
        name,
    )


def _identity(image_name: str) -> str:
    folder, _, name = image_name.rpartition("/")
    return f"{spellings(folder)[-1]}/{identity(split_name(name)[0])}"


def broken_link(path: Path) -> str:
    """Which link keeps a file from being found: the path's own or a folder's, to something that does not exist."""
    for part in (path, *path.parents):
        if os.path.islink(part) and not os.path.exists(part):
            return f"{shorten(part)} is a broken link; fetch or mount its target"
    return ""
