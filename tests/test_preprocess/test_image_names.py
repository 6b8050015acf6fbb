"""From an annotation's name to a file: equal spellings, guesses, files that must not be taken for it; ids; the manifest.

tests/data/wikiart_names.txt holds the names of the archive's list that are not plain, those that differ from another by
a hyphen or a number only, and some with a number in brackets.
"""

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from preprocess.image_manifest import manifest_rows, measure, write_manifest
from preprocess.image_names import ImageFolder, image_id
from tests.test_preprocess.helpers import read, save_image
from utils.errors import InputError

LISTED = Path(__file__).parents[1] / "data/wikiart_names.txt"
NAMES = [name.removesuffix(".jpg") for name in LISTED.read_text(encoding="utf-8").splitlines()]


def find(folder: ImageFolder, name: str) -> Path | None:
    """The best of the files that fit a name."""
    return next(iter(folder.look_up(name).paths), None)


def put(root, name):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_image_ids_are_the_same_everywhere():
    """Fixed for ever, as files of several machines are joined by them."""
    assert image_id("Abstract_Expressionism", "aaron-siskind_chicago-1951") == "1831236175493183382"
    for form in ("NFC", "NFD"):
        painting = unicodedata.normalize(form, "albrecht-dürer_hare-0091")
        assert image_id("Impressionism", painting) == "6508472581396896079"


# ---- single names ----------------------------------------------------------------------------------------------------


NFC = "Baroque/josé-café.jpg"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("annotated", "on_disk", "found_by"),
    [
        (NFC, NFC, "exact name"),
        (NFC, "Baroque/josé-café.png", "another extension"),
        (NFC, NFD, "Unicode form"),
        (NFC, "Baroque/jose#U0301-cafe#U0301.jpg", "escapes undone"),
        ("Baroque/jos#U00e9-caf#U00e9.jpg", NFD, "escapes undone"),
        ("Style/řezník.jpg", "Style/\\u0159ezn#U00edk.jpg", "escapes undone"),
        (NFD, NFC.encode().decode("cp1252"), "mojibake undone"),
        (NFC, NFC.encode().decode("cp437"), "mojibake undone"),
        (NFC, "Baroque/josã©-cafã©.jpg", "mojibake undone"),
        ("A/SÃO.jpg", "A/SÃO.jpg".encode().decode("latin-1").encode().decode("latin-1"), "mojibake undone"),
        (NFC.encode().decode("latin-1"), NFC, "mojibake undone"),
        (NFC, "Baroque/jose#U0301-cafe#U0301 (2).JPEG", "copy's number dropped"),
        (NFC, "baroque/JOSÉ-Café.JPG", "upper/lower case"),
        ("Cubism/andra(c)-lhote_a.jpg", "Cubism/andr-lhote_a.jpg", "artist's damaged name"),
        (NFC, "Baroque/jose-cafe.jpg", "letters without accents"),
        (NFC, "Baroque/jos__-caf__.jpg", "odd characters replaced"),
        (NFC, "Baroque/jos-caf.jpg", "odd characters dropped"),
    ],
)
def test_every_spelling_finds_its_file(tmp_path, annotated, on_disk, found_by):
    put(tmp_path, on_disk.rsplit("/", 1)[0] + "/someone-else.jpg")
    path = put(tmp_path, on_disk)
    assert ImageFolder(tmp_path).look_up(annotated) == ([path], found_by, "")


@pytest.mark.parametrize("extension", [".webp", ".gif", ".bmp", ".tif", ".tiff", ".JPG"])
def test_images_of_all_formats_are_found(tmp_path, extension):
    path = put(tmp_path, f"a{extension}")
    for name in ("a", "a.jpg", f"a{extension}"):
        assert find(ImageFolder(tmp_path), name) == path


def test_the_closest_spelling_wins(tmp_path):
    in_order = [
        NFC,
        NFD,
        "Baroque/jos#U00e9-caf#U00e9.jpg",
        NFC.encode().decode("latin-1"),
        "Baroque/josé-café (1).jpg",
        "Baroque/José-CAFÉ.jpg",
    ]
    paths = [put(tmp_path, name) for name in in_order]
    assert ImageFolder(tmp_path).look_up(NFC).paths == paths
    for index, path in enumerate(paths[:-1]):
        path.unlink()
        assert find(ImageFolder(tmp_path), NFC) == paths[index + 1]


def test_numbered_paintings_are_artworks_of_their_own(tmp_path):
    first, second = put(tmp_path, "Cubism/still-life.jpg"), put(tmp_path, "Cubism/still-life(1).jpg")
    folder = ImageFolder(tmp_path)
    assert folder.look_up("Cubism/still-life.jpg").paths == [first]
    assert folder.look_up("Cubism/still-life(1).jpg").paths == [second]
    assert find(folder, "Cubism/still-life(2).jpg") is None
    first.unlink()
    assert find(ImageFolder(tmp_path), "Cubism/still-life.jpg") is None
    copy = put(tmp_path, "Cubism/still-life (2).jpg")
    assert find(ImageFolder(tmp_path), "Cubism/still-life.jpg") == copy


def test_a_list_that_names_a_numbered_copy_means_that_copy(tmp_path):
    for name in ("Cubism/still-life.jpg", "Cubism/still-life (1).jpg"):
        put(tmp_path, name)
    assert find(ImageFolder(tmp_path), "Cubism/still-life (2).jpg") is None


@pytest.mark.parametrize("name", ["../secret.jpg", "Baroque/../../secret.jpg", "/etc/secret.jpg", ""])
def test_names_that_leave_the_folder_are_not_found(tmp_path, name):
    put(tmp_path, "secret.jpg")
    put(tmp_path, "images/Baroque/a.jpg")
    found = ImageFolder(tmp_path / "images").look_up(name)
    assert not found.paths and "leads out of the image folder" in found.reason


def test_names_in_other_folders_hidden_and_system_files_are_not_found(tmp_path):
    for name in ("Baroque/a.jpg", "Cubism/._b.jpg", "__MACOSX/c.jpg"):
        put(tmp_path, name)
    folder = ImageFolder(tmp_path)
    for name in ("Baroque/b.jpg", "Rococo/a.jpg", "Cubism/._b.jpg", "Cubism/b.jpg", "__MACOSX/c.jpg"):
        assert find(folder, name) is None
    with pytest.raises(InputError, match="no such image folder"):
        ImageFolder(tmp_path / "nowhere")


LOST, KEPT = "Cubism/andr-lhote_a.jpg", "Cubism/andré-lhote_a.jpg"


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [
        ([LOST], {"Cubism/andrã©-lhote_a.jpg": LOST, "Cubism/andra(c)-lhote_a.jpg": LOST}),  # one artwork
        ([LOST, KEPT], {"Cubism/andra(c)-lhote_a.jpg": None}),  # could be either
        (["B/moller.jpg"], {"B/möller.jpg": None, "B/moller.jpg": "B/moller.jpg"}),
        (
            ["B/mller.jpg"],
            {"B/m-ller.jpg": None, "B/möller.jpg": None, "B/müller.jpg": None, "B/mller.jpg": "B/mller.jpg"},
        ),
        (["B/m_ller.jpg"], {"B/möller.jpg": None, "B/müller.jpg": None}),
        (["B/müller.jpg"], {"B/möller.jpg": None}),  # no letter is lost
        (["B/a.jpg"], {"B/日本語a.jpg": None}),  # too few are left
    ],
)
def test_a_guess_needs_a_single_file_that_no_other_listed_artwork_claims(tmp_path, on_disk, listed):
    for name in on_disk:
        put(tmp_path, name)
    found = ImageFolder(tmp_path).look_up_all(list(listed))
    assert [part.paths for part in found] == [[tmp_path / file] if file else [] for file in listed.values()]


# ---- all names of WikiArt that are not plain, in every form that archives give them -----------------------------------

# in the listed artists: the letter as it was misread -> the true one, and a transliteration that a public user of ArtEmis'
# release file has
MISREAD = {
    "ã©": ("é", "a(c)"),
    "ã³": ("ó", "a3"),
    "ã¶": ("ö", "aP"),
    "ã¨": ("è", 'a"'),
    "ã¼": ("ü", "a 1-4"),
    "ã\xad": ("í", "a"),
    "â\xa0": ("\xa0", "a "),
}


def true(name):
    for misread, (letter, _) in MISREAD.items():
        name = name.replace(misread, letter)
    return name


def transliterated(name):
    for misread, (_, letters) in MISREAD.items():
        name = name.replace(misread, letters)
    return name


def decomposed(name):
    return unicodedata.normalize("NFD", name)


def folded(name):
    return "".join(letter for letter in unicodedata.normalize("NFKD", name) if letter.isascii())


def misread(name, code_page):
    return name.encode().decode(code_page, errors="replace")


def replaced(replacement, pattern="[^\x00-\x7f]"):
    return lambda name: re.sub(pattern, replacement, name)


ODD = "[^A-Za-z0-9/_.-]"
FORMS = {
    # seen with users
    "as listed": lambda name: name,
    "NFD": decomposed,
    "unzip's escapes": replaced(lambda match: f"#U{ord(match[0]):04x}"),
    "misread once more as latin-1": lambda name: misread(name, "latin-1"),
    "misread once more as cp437": lambda name: misread(name, "cp437"),
    "true name, NFD": lambda name: decomposed(true(name)),
    "other than ASCII dropped": replaced(""),
    "transliterated": transliterated,
    "true name, transliterated": lambda name: folded(true(name)),
    "apostrophes dropped": replaced("", "'"),
    # of the same kinds
    "misread and lower-cased again": lambda name: misread(name, "latin-1").lower(),
    "latin-1 bytes": lambda name: name.encode("latin-1").decode("utf-8", errors="surrogateescape"),
    "percent-encoded twice": lambda name: quote(quote(name)),
    "'?' for other than ASCII": replaced("?"),
    "'_' for all odd characters": replaced("_", ODD),
    "'_' for odd bytes": replaced(lambda match: "_" * len(match[0].encode()), ODD),
    "all odd characters dropped": replaced("", ODD),
    "another apostrophe": replaced("’", "'"),
    "upper case": str.upper,
    "a second download": lambda name: f"{name} (1)",
}
SIDES = {
    "v1.0": lambda name: name,
    "v2.0 (NFD)": decomposed,
    "transliterated": transliterated,
    "transliterated, no apostrophes": lambda name: transliterated(name).replace("'", ""),
}


def put_all(root, form, names):
    """Make empty files of the names in one form; returns path -> name."""
    owners = {put(root, f"{FORMS[form](name)}.jpg"): name for name in names}
    assert len(owners) == len(names)
    return owners


INNER_LOOP = ("as listed", "unzip's escapes", "true name, NFD", "other than ASCII dropped")
FORMS_AND_MARKS = [pytest.param(form, marks=[] if form in INNER_LOOP else pytest.mark.slow) for form in FORMS]


@pytest.mark.parametrize("form", FORMS_AND_MARKS)
def test_every_name_is_found_and_no_other_artwork(tmp_path, form):
    """First of every other one, so that of most that are nearly equal one is absent, which no other may replace."""
    number = list(FORMS).index(form)
    start, owners = number % 2, {}
    for added, complete in ((NAMES[start::2], False), (NAMES[1 - start :: 2], True)):
        owners |= put_all(tmp_path, form, added)
        folder = ImageFolder(tmp_path)
        for side in ("v1.0", list(SIDES)[1 + number % 3]):
            found = {name: owners.get(find(folder, f"{SIDES[side](name)}.jpg")) for name in NAMES}
            assert {name: owner for name, owner in found.items() if owner != name and (owner or complete)} == {}, side


# ---- the manifest ----------------------------------------------------------------------------------------------------


def test_the_manifest_says_how_each_image_was_found_and_what_is_wrong_with_it(tmp_path):
    root, manifest = tmp_path / "images", tmp_path / "manifest.csv"
    corrupt = "Baroque/rembrandt_woman-standing-with-raised-hands.jpg"
    latin = os.fsdecode("Baroque/édouard-manet_bar.jpg".encode("latin-1"))
    for name in ("Baroque/good.jpg", "Baroque/twice.jpg", latin, "Pop_Art/a_1_.jpg", "Cubism/andr-lhote_a.jpg"):
        save_image(root / name, (20, 10))
    for name in (corrupt, "Baroque/empty.jpg", "Baroque/twice (1).jpg"):
        put(root, name)
    expected = {
        "Baroque/good.jpg": ("Baroque/good.jpg", "20", "10", "", "exact name"),
        "Baroque/édouard-manet_bar.jpg": (latin.replace("\udce9", r"\udce9"), "20", "10", "", "mojibake undone"),
        "Cubism/andrã©-lhote_a.jpg": ("Cubism/andr-lhote_a.jpg", "20", "10", "", "artist's damaged name"),
        "Baroque/twice.jpg": ("Baroque/twice.jpg", "20", "10", "ambiguous (also twice (1).jpg)", "exact name"),
        corrupt: (corrupt, "", "", "unreadable (known to be corrupt in the public WikiArt archive)", "exact name"),
        # a guess that another name of the list claims is none
        "Pop_Art/a(1).jpg": ("", "", "", "missing (a_1_.jpg could also be Pop_Art/a{1}.jpg)", ""),
        "Pop_Art/a{1}.jpg": ("", "", "", "missing (a_1_.jpg could also be Pop_Art/a(1).jpg)", ""),
        "Pop_Art/gone.jpg": ("", "", "", "missing", ""),
    }
    names = ["Baroque/empty.jpg", *expected]
    counts = write_manifest(manifest, map(measure, manifest_rows(ImageFolder(root), names)))
    rows = {name: (path.removeprefix(f"{root}/"), *row) for name, path, *row in read(manifest).itertuples(index=False)}
    assert "empty.jpg: unreadable image (it is empty" in rows.pop("Baroque/empty.jpg")[3]
    assert rows == expected and counts == ({"": 3, "ambiguous": 1, "unreadable": 2, "missing": 3}, 2, 1)
