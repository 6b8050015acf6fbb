"""WikiArt's real names in every form that archives give them, against the forms that annotations have.

tests/data/wikiart_names.txt holds the names of the archive's list that are not plain, those that differ from another by
a hyphen or a number only, and some with a number in brackets.
"""

import re
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from preprocess.image_names import ImageFolder

NAMES = (Path(__file__).parents[1] / "data/wikiart_names.txt").read_text(encoding="utf-8").splitlines()

# artist as listed: the true name, and the listed one transliterated as a public user of ArtEmis' release file has it
ARTISTS = {
    "andrã©-lhote": ("andré-lhote", "andra(c)-lhote"),
    "antã³nio-de-carvalho-da-silva-porto": (
        "antónio-de-carvalho-da-silva-porto",
        "anta3nio-de-carvalho-da-silva-porto",
    ),
    "arnold-bã¶cklin": ("arnold-böcklin", "arnold-baPcklin"),
    "eugã¨ne-grasset": ("eugène-grasset", 'euga"ne-grasset'),
    "ferdinand-georg-waldmã¼ller": ("ferdinand-georg-waldmüller", "ferdinand-georg-waldma 1-4ller"),
    "fã©lix-del-marle": ("félix-del-marle", "fa(c)lix-del-marle"),
    "georges-lacombeâ\xa0": ("georges-lacombe\xa0", "georges-lacombea "),
    "grã©goire-michonze": ("grégoire-michonze", "gra(c)goire-michonze"),
    "joaquã\xadn-sorolla": ("joaquín-sorolla", "joaquan-sorolla"),
    "mestre-ataã\xadde": ("mestre-ataíde", "mestre-ataade"),
    "roger-bissiã¨re": ("roger-bissière", 'roger-bissia"re'),
}


def renamed(name, which):
    style, _, rest = name.partition("/")
    artist, _, title = rest.partition("_")
    return f"{style}/{ARTISTS[artist][which]}_{title}" if artist in ARTISTS else name


def true(name):
    return renamed(name, 0)


def transliterated(name):
    return renamed(name, 1)


def folded(name):
    return "".join(letter for letter in unicodedata.normalize("NFKD", name) if letter.isascii())


def misread(name, code_page, lowered=False):
    style, _, rest = name.partition("/")
    rest = rest.encode().decode(code_page, errors="replace")
    return f"{style}/{rest.lower() if lowered else rest}"


def odd(replacement, pattern="[^\x00-\x7f]"):
    return lambda name: re.sub(pattern, replacement, name)


def in_stem(pattern, replacement):
    return lambda name: re.sub(pattern, replacement, name.removesuffix(".jpg")) + ".jpg"


BRACKETS_TOO = "[^A-Za-z0-9/_.-]"
FORMS = {
    # seen with users
    "as listed": lambda name: name,
    "NFD": lambda name: unicodedata.normalize("NFD", name),
    "unzip's escapes": odd(lambda match: f"#U{ord(match[0]):04x}"),
    "misread once more as latin-1": lambda name: misread(name, "latin-1"),
    "misread once more as cp437": lambda name: misread(name, "cp437"),
    "true name": true,
    "true name, NFD": lambda name: unicodedata.normalize("NFD", true(name)),
    "other than ASCII dropped": odd(""),
    "transliterated": transliterated,
    "true name, transliterated": lambda name: folded(true(name)),
    "apostrophes dropped": odd("", "'"),
    # of the same kinds
    "true name misread as cp850": lambda name: misread(true(name), "cp850"),
    "misread and lower-cased again": lambda name: misread(name, "latin-1", lowered=True),
    "latin-1 bytes": lambda name: name.encode("latin-1").decode("utf-8", errors="surrogateescape"),
    "percent-encoded": quote,
    "percent-encoded twice": lambda name: quote(quote(name, safe=""), safe="").replace("%252F", "/"),
    "folded to ASCII": folded,
    **{f"{mark!r} for other than ASCII": odd(mark) for mark in ("_", "?", "-", "\ufffd")},
    "'_' for all odd characters": in_stem(BRACKETS_TOO, "_"),
    "'_' for odd bytes": odd(lambda match: "_" * len(match[0].encode()), BRACKETS_TOO),
    "all odd characters dropped": in_stem(BRACKETS_TOO, ""),
    **{f"apostrophe {mark}": odd(mark, "'") for mark in "’ʼ`_"},
    "upper case": lambda name: name.partition("/")[0] + "/" + name.partition("/")[2].upper(),
    "a second download": lambda name: name.replace(".jpg", " (1).jpg"),
    "png": lambda name: name.replace(".jpg", ".png"),
}
SIDES = {
    "v1.0": lambda name: name,
    "v2.0 (NFD)": lambda name: unicodedata.normalize("NFD", name),
    "transliterated": transliterated,
    "transliterated, no apostrophes": lambda name: transliterated(name).replace("'", ""),
}


def on_disk(root, form, names):
    """Make empty files of the names in one form; returns an ImageFolder and path -> name."""
    owners = {}
    for name in names:
        path = root / FORMS[form](name)
        assert path not in owners
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
        owners[path] = name
    return ImageFolder(root), owners


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_name_is_found_and_no_other_artwork(tmp_path, form):
    folder, owners = on_disk(tmp_path, form, NAMES)
    for side, spelled in SIDES.items():
        counts = {"found": 0, "missing": 0, "wrong": 0}
        for name in NAMES:
            path = folder.find(spelled(name))
            counts["missing" if path is None else "found" if owners[path] == name else "wrong"] += 1
        assert counts == {"found": 860, "missing": 0, "wrong": 0}, side


@pytest.mark.parametrize("form", FORMS)
def test_an_absent_artwork_is_never_replaced_by_another(tmp_path, form):
    """Every other name is on disk, so that of most that are nearly equal one is absent."""
    start = list(FORMS).index(form) % 2
    folder, owners = on_disk(tmp_path, form, NAMES[start::2])
    for side in ("v1.0", "transliterated"):
        found = {name: folder.find(SIDES[side](name)) for name in NAMES}
        assert {name: path for name, path in found.items() if path and owners[path] != name} == {}


def test_the_names_hold_pairs_that_are_nearly_equal():
    """Else the tests above would show little."""
    letters = [re.sub("[^a-z0-9]", "", name.lower()) for name in NAMES]
    assert len(NAMES) == 860 and len(letters) - len(set(letters)) == 23
