"""The spellings of a painting's name: which of them are one name, and which are damaged beyond that but still tell it.

Names are compared without folder and extension. `spellings` gives equal names; `Clues` are for names that lost letters,
and hold only where a single file of a folder fits.
"""

import contextlib
import html
import re
import unicodedata
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import unquote

EXTENSIONS = (".jpg", ".jpeg", ".png")

# What `spellings` undoes, in its order.
EQUAL = ("exact name", "Unicode form", "escapes undone", "mojibake undone", "copy's number dropped", "upper/lower case")

# Artists whose names are damaged in WikiArt's own list, so that no decoder helps: the first eleven are UTF-8 read as
# latin-1 and then lower-cased, and the apostrophes of the others get lost. The rest of the name tells the artist.
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
_LONGEST_DAMAGE = 64  # characters that may stand for the one that was damaged
_ARTIST_PARTS = {tuple(re.split(r"[^a-z-]", artist)): re.sub(r"[^a-z-]", "", artist) for artist in DAMAGED_ARTISTS}
_ARTIST_BEGINNINGS = tuple(beginning for beginning, _ in _ARTIST_PARTS)

_ESCAPE = re.compile(r"(?:#U|#u|\\U|\\u|%u)(?![dD][89a-fA-F])([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_LOWERED = re.compile("[\xe2-\xff](?=[\x80-\xbf])")  # the first of two bytes of UTF-8, read as latin-1 and lower-cased
_CODE_PAGES = ("cp437", "cp850", "mac_roman", "cp1250", "cp1251", "cp866", "koi8_r")
_ODD = re.compile("[^a-z0-9. _-]+")
_REPLACED = re.compile("[^a-z0-9. -]+")
_LOST = re.compile("[a-z0-9. _?\ufffd-]*")  # what a name consists of whose odd characters were dropped or replaced
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "\xa0": " "}
    | dict.fromkeys("'’‘‛ʼ′´`\xad\u200b\ufeff")
)


class Clues(NamedTuple):
    """What is left of a damaged name; equal clues of two names hint that they are one.

    plain: in ASCII letters as far as possible, without apostrophes. replaced: every run of odd characters is "_".
    dropped: without them ("" where little is left). odd: whether there are any; of two names that agree in one of these
    two, only one may have them, as the other is the one that lost them. artist: whether it is one of DAMAGED_ARTISTS.
    """

    plain: str
    replaced: str
    dropped: str
    odd: bool
    artist: bool


def split_name(name: str) -> tuple[str, str]:
    """Name and image extension; any other "extension" (as in `st.-george`) belongs to the name."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if dot and (dot + extension).lower() in EXTENSIONS else (name, "")


@lru_cache(4096)  # a look-up compares the same names several times
def spellings(stem: str) -> tuple[str, ...]:
    """`stem` as it is, then ever more general spellings, see EQUAL; names are equal when their last ones are.

    "x(1)" stays apart from "x": WikiArt gives artworks of one title such names. A blank before the bracket is a copy's.
    """
    if is_plain(stem):
        composed = unescaped = repaired = stem
    else:
        composed = unicodedata.normalize("NFC", stem)
        unescaped = _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), composed)
        for _ in range(2):  # archives are packed and unpacked more than once
            unescaped = unquote(html.unescape(unescaped), errors="surrogateescape")
        unescaped = unicodedata.normalize("NFC", unescaped)
        repaired = _repair(unescaped)
    base, number = split_number(repaired)
    original = base.rstrip() if number and base.endswith(" ") else repaired
    return stem, composed, unescaped, repaired, original, unicodedata.normalize("NFC", original.casefold())


def is_plain(stem: str) -> bool:
    """Whether a name needs no decoding: true for nearly all, which spares the work."""
    return stem.isascii() and not any(mark in stem for mark in "#\\%&")


def split_number(stem: str) -> tuple[str, str]:
    """ "x(1)" -> ("x", "1"); other names -> (stem, "")."""
    base, bracket, number = stem[:-1].rpartition("(") if stem.endswith(")") else (stem, "", "")
    return (base, number) if bracket and base and number.isascii() and number.isdigit() else (stem, "")


def _repair(text: str) -> str:
    """Undo mojibake: UTF-8 read as another encoding, up to three times over, or latin-1 bytes in a UTF-8 name."""
    for _ in range(3):
        for to_bytes in (_latin_bytes, _lowered_bytes, *(partial(str.encode, encoding=page) for page in _CODE_PAGES)):
            try:
                text = unicodedata.normalize("NFC", to_bytes(text).decode("utf-8"))
                break
            except UnicodeError:
                continue
        else:
            break
        if text.isascii():
            break
    if any("\udc80" <= character <= "\udcff" for character in text):  # how Python shows bytes that are no UTF-8
        with contextlib.suppress(UnicodeError):  # the other halves of characters, which JSON can hold, are no bytes
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


def _lowered_bytes(text: str) -> bytes:
    """As `_latin_bytes`, of a text that was lower-cased after it had been misread."""
    return _latin_bytes(_LOWERED.sub(lambda match: chr(ord(match[0]) - 32), text))


def clues(stem: str) -> Clues:
    """What may still tell a damaged name, see Clues. `stem` is the last of `spellings`, or another lower-case one."""
    whole, artist = _undamaged_artist(stem)
    plain = whole
    if not (plain.isascii() and "'" not in plain and "`" not in plain):
        letters = unicodedata.normalize("NFKD", whole.translate(_LETTERS))
        plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    plain = plain.strip().replace(" _", "_")
    dropped = _ODD.sub("", whole)
    if 2 * len(dropped) < len(whole):
        dropped = ""
    return Clues(plain, _REPLACED.sub("_", whole), dropped, not _LOST.fullmatch(whole), artist)


def identity(stem: str) -> str:
    """What the spellings of one artwork's name have in common, a copy's number included, and no guess."""
    return _undamaged_artist(spellings(stem)[3].casefold())[0]


def _undamaged_artist(stem: str) -> tuple[str, bool]:
    """A name that begins with one of DAMAGED_ARTISTS, however damaged, with that artist in ASCII; and whether it does."""
    if stem.startswith(_ARTIST_BEGINNINGS):
        for (beginning, end), artist in _ARTIST_PARTS.items():
            if stem.startswith(beginning):
                start = stem.find(f"{end}_", len(beginning), len(beginning) + _LONGEST_DAMAGE + len(end) + 1)
                if start >= 0:
                    return f"{artist}_{stem[start + len(end) + 1 :].lstrip('_')}", True
    return stem, False
