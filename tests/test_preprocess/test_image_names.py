"""From an annotation's name to a file: equal spellings, guesses, and files that must not be taken for it; image ids.

tests/data/wikiart_names.txt holds the names of the archive's list that are not plain, those that differ from another by
a hyphen or a number only, and some with a number in brackets.
"""

import hashlib
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest

from preprocess.image_names import ImageFolder, identity, image_id
from utils.errors import InputError

NAMES = (Path(__file__).parents[1] / "data/wikiart_names.txt").read_text(encoding="utf-8").splitlines()


def find(folder: ImageFolder, name: str) -> Path | None:
    """The best of the files that fit a name."""
    return next(iter(folder.look_up(name).paths), None)


def put(root, name):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_image_ids_are_the_same_everywhere():
    """Fixed for ever, as files of several machines are joined by them: SHA-256 of the name, eight bytes, one bit less."""
    assert image_id("Abstract_Expressionism", "aaron-siskind_chicago-1951") == "1831236175493183382"
    name = "Impressionism/albrecht-dürer_hare-0091"
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8")).digest()
    for form in ("NFC", "NFD"):
        assert image_id(*unicodedata.normalize(form, name).split("/")) == str(int.from_bytes(digest[:8], "big") // 2)


# ---- single names ----------------------------------------------------------------------------------------------------


NFC = "Baroque/josé-café.jpg"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("annotated", "on_disk", "found_by"),
    [
        (NFC, NFC, "exact name"),
        (NFC, "Baroque/josé-café.png", "another extension"),
        (NFC, NFD, "Unicode form"),
        (NFD, NFC, "Unicode form"),
        (NFC, "Baroque/jos#U00e9-caf#U00e9.jpg", "escapes undone"),
        (NFC, "Baroque/jose#U0301-cafe#U0301.jpg", "escapes undone"),
        (NFC, "Baroque/jos%C3%A9-caf%C3%A9.jpg", "escapes undone"),
        ("Baroque/jos#U00e9-caf#U00e9.jpg", NFD, "escapes undone"),
        ("Style/řezník.jpg", "Style/\\u0159ezn#U00edk.jpg", "escapes undone"),
        (NFC, NFC.encode().decode("latin-1"), "mojibake undone"),
        (NFD, NFC.encode().decode("cp1252"), "mojibake undone"),
        (NFC, NFC.encode().decode("cp437"), "mojibake undone"),
        (NFC.encode().decode("latin-1"), NFC, "mojibake undone"),
        (NFC, NFC.encode("latin-1").decode("utf-8", errors="surrogateescape"), "mojibake undone"),
        (NFC, "Baroque/josã©-cafã©.jpg", "mojibake undone"),
        (NFC, "Baroque/josé-café (1).jpg", "copy's number dropped"),
        (NFC, "Baroque/jose#U0301-cafe#U0301 (2).JPEG", "copy's number dropped"),
        (NFC, "baroque/JOSÉ-Café.JPG", "upper/lower case"),
        ("Baroque/d'été.jpg", "Baroque/dʼété.jpg", "letters without accents"),
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


def test_of_equally_close_names_the_same_extension_wins_and_then_the_composed_name(tmp_path):
    composed, _, _ = put(tmp_path, NFC), put(tmp_path, NFD), put(tmp_path, NFC.replace("jpg", "JPG"))
    assert find(ImageFolder(tmp_path), "Baroque/jos#U00e9-caf#U00e9.jpg") == composed


def test_numbered_paintings_are_artworks_of_their_own(tmp_path):
    first, second = put(tmp_path, "Cubism/still-life.jpg"), put(tmp_path, "Cubism/still-life(1).jpg")
    folder = ImageFolder(tmp_path)
    assert folder.look_up("Cubism/still-life.jpg").paths == [first]
    assert folder.look_up("Cubism/still-life(1).jpg").paths == [second]
    assert find(folder, "Cubism/still-life(2).jpg") is None
    put(tmp_path, "Cubism/ninths (²).jpg")  # a digit, and no number
    assert find(ImageFolder(tmp_path), "Cubism/ninths.jpg") is None
    first.unlink()
    assert find(ImageFolder(tmp_path), "Cubism/still-life.jpg") is None
    copy = put(tmp_path, "Cubism/still-life (2).jpg")
    assert find(ImageFolder(tmp_path), "Cubism/still-life.jpg") == copy


def test_a_list_that_names_a_numbered_copy_means_that_copy(tmp_path):
    assert len({identity(stem) for stem in ("still-life", "still-life (1)", "still-life (2)", "still-life(2)")}) == 4
    put(tmp_path, "Cubism/still-life.jpg")
    put(tmp_path, "Cubism/still-life (1).jpg")
    assert ImageFolder(tmp_path).look_up("Cubism/still-life (2).jpg").paths == []


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


def test_a_guess_needs_a_single_file(tmp_path):
    put(tmp_path, "Cubism/andr-lhote_a.jpg")
    put(tmp_path, "Cubism/andré-lhote_a.jpg")
    found = ImageFolder(tmp_path).look_up("Cubism/andra(c)-lhote_a.jpg")
    assert not found.paths and found.reason == "could be andr-lhote_a.jpg or andré-lhote_a.jpg"


@pytest.mark.parametrize(
    "names",
    [
        ["Baroque/möller_a.jpg", "Baroque/moller_a.jpg"],  # the second is there by its own name
        ["Baroque/m-ller_a.jpg", "Baroque/möller_a.jpg", "Baroque/müller_a.jpg", "Baroque/mller_a.jpg"],
    ],
)
def test_a_guess_never_takes_the_file_of_another_listed_artwork(tmp_path, names):
    path = put(tmp_path, names[-1])
    *others, last = ImageFolder(tmp_path).look_up_all(names)
    assert last.paths == [path] and not any(found.paths for found in others)
    # alone in the list, the name of one character that is lost would have got it
    alone = [name for name in names[:-1] if find(ImageFolder(tmp_path), name)]
    assert alone == [name for name, found in zip(names, others, strict=False) if "could also be" in found.reason] != []


def test_listed_names_that_would_be_guessed_alike(tmp_path):
    """Two artworks get nothing, two spellings of one artwork the file; a name of which no letter is lost is not guessed."""
    put(tmp_path, "Baroque/m_ller_a.jpg")
    path, whole = put(tmp_path, "Cubism/andr-lhote_a.jpg"), put(tmp_path, "Baroque/müller_b.jpg")
    names = ["Baroque/möller_a.jpg", "Baroque/müller_a.jpg", "Cubism/andrã©-lhote_a.jpg", "Cubism/andra(c)-lhote_a.jpg"]
    found = ImageFolder(tmp_path).look_up_all([*names, "Baroque/möller_b.jpg", "Baroque/müller_b.jpg"])
    assert [part.paths for part in found] == [[], [], [path], [path], [], [whole]]
    assert find(ImageFolder(tmp_path), "Baroque/möller_b.jpg") is None


def test_the_folder_of_the_exact_name_comes_first(tmp_path):
    lower, upper = put(tmp_path, "baroque/a.jpg"), put(tmp_path, "Baroque/a.jpg")
    assert ImageFolder(tmp_path).look_up("baroque/a.jpg").paths == [lower, upper]
    assert ImageFolder(tmp_path).look_up("Baroque/a.jpg").paths == [upper, lower]


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


def renamed(name, which):
    for misread, letters in MISREAD.items():
        name = name.replace(misread, letters[which])
    return name


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


def one_of(marks, pattern="[^\x00-\x7f]"):
    """Each name gets one of the marks, so that all occur in one folder."""
    return lambda name: re.sub(pattern, marks[sum(name.encode()) % len(marks)], name)


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
    "true name, NFD": lambda name: unicodedata.normalize("NFD", true(name)),
    "other than ASCII dropped": odd(""),
    "transliterated": transliterated,
    "true name, transliterated": lambda name: folded(true(name)),
    "apostrophes dropped": odd("", "'"),
    # of the same kinds
    "true name misread as cp850": lambda name: misread(true(name), "cp850"),
    "misread and lower-cased again": lambda name: misread(name, "latin-1", lowered=True),
    "latin-1 bytes": lambda name: name.encode("latin-1").decode("utf-8", errors="surrogateescape"),
    "percent-encoded twice": lambda name: quote(quote(name, safe=""), safe="").replace("%252F", "/"),
    "folded to ASCII": folded,
    "a mark for other than ASCII": one_of("_?-\ufffd"),
    "'_' for all odd characters": in_stem(BRACKETS_TOO, "_"),
    "'_' for odd bytes": odd(lambda match: "_" * len(match[0].encode()), BRACKETS_TOO),
    "all odd characters dropped": in_stem(BRACKETS_TOO, ""),
    "another apostrophe": one_of("’ʼ`_", "'"),
    "upper case": lambda name: name.partition("/")[0] + "/" + name.partition("/")[2].upper(),
    "a second download, png": lambda name: name.replace(".jpg", " (1).png"),
}
SIDES = {
    "v1.0": lambda name: name,
    "v2.0 (NFD)": lambda name: unicodedata.normalize("NFD", name),
    "transliterated": transliterated,
    "transliterated, no apostrophes": lambda name: transliterated(name).replace("'", ""),
}


def put_all(root, form, names):
    """Make empty files of the names in one form; returns path -> name."""
    owners = {root / FORMS[form](name): name for name in names}
    assert len(owners) == len(names)
    for path in owners:
        put(root, path.relative_to(root))
    return owners


INNER_LOOP = ("as listed", "unzip's escapes", "true name, NFD", "other than ASCII dropped")
FORMS_AND_MARKS = [pytest.param(form, marks=[] if form in INNER_LOOP else pytest.mark.slow) for form in FORMS]


@pytest.mark.parametrize("form", FORMS_AND_MARKS)
def test_every_name_is_found_and_no_other_artwork(tmp_path, form):
    """First of every other one, so that of most that are nearly equal one is absent, which no other may replace."""
    number = list(FORMS).index(form)
    sides = ("v1.0", list(SIDES)[1 + number % 3])
    start = number % 2
    owners = put_all(tmp_path, form, NAMES[start::2])
    for side in sides:
        folder = ImageFolder(tmp_path)
        found = {name: find(folder, SIDES[side](name)) for name in NAMES}
        assert {name: path for name, path in found.items() if path and owners[path] != name} == {}, side
    owners |= put_all(tmp_path, form, NAMES[1 - start :: 2])
    folder = ImageFolder(tmp_path)
    for side in sides:
        assert {name: path for name in NAMES if owners.get(path := find(folder, SIDES[side](name))) != name} == {}, side


def test_the_names_hold_pairs_that_are_nearly_equal():
    """Else the test above would show little."""
    letters = [re.sub("[^a-z0-9]", "", name.lower()) for name in NAMES]
    assert len(NAMES) == 860 and len(letters) - len(set(letters)) == 23
