"""Compare the spellings of a painting's name, without folder and extension, and derive the image's id.

`spellings` decides which names are equal. `ReducedName` is for names that have lost letters: it gives hints, which
count only if a single file of a folder fits.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import unquote

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
