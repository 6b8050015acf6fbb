"""From an annotation's name to a file: equal spellings, guesses, and files that must not be taken for it."""

import unicodedata

import pytest

from preprocess.image_names import ImageFolder
from utils.errors import InputError


def put(root, name):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


NFC = "Baroque/josé-café.jpg"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("annotated", "on_disk"),
    [
        (NFC, NFC),
        (NFC, NFD),
        (NFD, NFC),
        (NFC, "Baroque/jos#U00e9-caf#U00e9.jpg"),
        (NFC, "Baroque/jose#U0301-cafe#U0301.jpg"),
        (NFC, "Baroque/jos\\u00E9-café.jpg"),
        ("Baroque/jos#U00e9-caf#U00e9.jpg", NFD),
        (NFC, NFC.encode().decode("latin-1")),
        (NFD, NFC.encode().decode("cp1252")),
        (NFC, NFC.encode().decode("cp437")),
        (NFC.encode().decode("latin-1"), NFC),
        (NFC, NFC.encode("latin-1").decode("utf-8", errors="surrogateescape")),
        (NFC, "Baroque/josé-café (1).jpg"),
        (NFC, "Baroque/JOSÉ-Café.JPG"),
        (NFC, "baroque/josé-café.jpeg"),
        (NFC, "Baroque/josé-café.png"),
        (NFC, "Baroque/jose#U0301-cafe#U0301 (2).JPEG"),
        # the second name that the published code tries
        ("Style/öl.jpg", "Style/#U00f6l.jpg"),
        ("Style/x̂.jpg", "Style/x#U0302.jpg"),
        ("Style/řezník.jpg", "Style/\\u0159ezn#U00edk.jpg"),
        ("Style/Š.jpg", "Style/\\u0160.jpg"),
        ("Style/a’b.jpg", "Style/a\\u2019b.jpg"),
        ("Style/u\u0308ber-a\u030a.jpg", "Style/#U00fcber-#U00e5.jpg"),
    ],
)
def test_every_spelling_finds_its_file(tmp_path, annotated, on_disk):
    put(tmp_path, on_disk.rsplit("/", 1)[0] + "/someone-else.jpg")
    path = put(tmp_path, on_disk)
    assert ImageFolder(tmp_path).look_up(annotated).paths == [path]


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
        assert ImageFolder(tmp_path).find(NFC) == paths[index + 1]


def test_numbered_paintings_are_artworks_of_their_own(tmp_path):
    first, second = put(tmp_path, "Cubism/still-life.jpg"), put(tmp_path, "Cubism/still-life(1).jpg")
    folder = ImageFolder(tmp_path)
    assert folder.look_up("Cubism/still-life.jpg").paths == [first]
    assert folder.look_up("Cubism/still-life(1).jpg").paths == [second]
    assert folder.find("Cubism/still-life(2).jpg") is None
    first.unlink()
    assert ImageFolder(tmp_path).find("Cubism/still-life.jpg") is None
    copy = put(tmp_path, "Cubism/still-life (2).jpg")
    assert ImageFolder(tmp_path).find("Cubism/still-life.jpg") == copy


def test_what_is_absent_stays_absent(tmp_path):
    put(tmp_path, "Baroque/a.jpg")
    folder = ImageFolder(tmp_path)
    assert folder.find("Baroque/b.jpg") is None
    assert folder.find("Rococo/a.jpg") is None
    with pytest.raises(InputError, match="no such image folder"):
        ImageFolder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../secret.jpg", "Baroque/../../secret.jpg", "/etc/secret.jpg", ""])
def test_names_that_leave_the_folder_are_not_found(tmp_path, name):
    put(tmp_path, "secret.jpg")
    put(tmp_path, "images/Baroque/a.jpg")
    found = ImageFolder(tmp_path / "images").look_up(name)
    assert not found.paths and "leads out of the image folder" in found.reason


def test_links_are_followed(tmp_path):
    outside, inside = put(tmp_path, "disk/b.jpg"), put(tmp_path, "images/Baroque/a.jpg")
    (tmp_path / "images/Baroque/out.jpg").symlink_to(outside)
    (tmp_path / "images/Baroque/in.jpg").symlink_to(inside)
    (tmp_path / "images/Rococo").symlink_to(tmp_path / "disk")
    (tmp_path / "alias").symlink_to(tmp_path / "images")
    folder = ImageFolder(tmp_path / "alias")
    for name in ("Baroque/in.jpg", "Baroque/out.jpg", "Rococo/b.jpg", "rococo/B.png"):
        assert folder.find(name).is_file()


def test_a_broken_link_is_named(tmp_path):
    """As git-annex and DVC leave for files they have not fetched, and disks that are not mounted."""
    put(tmp_path, "Baroque/a.jpg")
    (tmp_path / "Baroque/b.jpg").symlink_to("../.git/annex/objects/b.jpg")
    (tmp_path / "Rococo").symlink_to("/nowhere/Rococo")
    folder = ImageFolder(tmp_path)
    for name, link in (("Baroque/b.jpg", "Baroque/b.jpg"), ("Rococo/c.jpg", "Rococo")):
        found = folder.look_up(name)
        assert not found.paths and found.reason.startswith(f"{tmp_path / link} is a broken link")
    assert not folder.look_up("Baroque/c.jpg").reason


def test_hidden_and_system_files_are_no_images(tmp_path):
    put(tmp_path, "Baroque/._a.jpg")
    put(tmp_path, "__MACOSX/a.jpg")
    for name in ("Baroque/._a.jpg", "Baroque/a.jpg", "__MACOSX/a.jpg"):
        assert ImageFolder(tmp_path).find(name) is None


@pytest.mark.parametrize(
    ("annotated", "on_disk", "found_by"),
    [
        ("Baroque/a.jpg", "Baroque/a.jpg", "exact name"),
        ("Baroque/a.jpg", "Baroque/a.png", "another extension"),
        (NFC, NFD, "Unicode form"),
        (NFC, "Baroque/jos%C3%A9-caf%C3%A9.jpg", "escapes undone"),
        (NFC, "Baroque/josã©-cafã©.jpg", "mojibake undone"),
        ("Baroque/a.jpg", "Baroque/a (1).jpg", "copy's number dropped"),
        ("Baroque/a.jpg", "Baroque/A.jpg", "upper/lower case"),
        ("Cubism/andra(c)-lhote_a.jpg", "Cubism/andr-lhote_a.jpg", "artist's damaged name"),
        (NFC, "Baroque/jose-cafe.jpg", "letters without accents"),
        (NFC, "Baroque/jos__-caf__.jpg", "odd characters replaced"),
        (NFC, "Baroque/jos-caf.jpg", "odd characters dropped"),
    ],
)
def test_how_a_file_was_found_is_named(tmp_path, annotated, on_disk, found_by):
    path = put(tmp_path, on_disk)
    assert ImageFolder(tmp_path).look_up(annotated) == ([path], found_by, "")


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
    guessed = [name for name in names[:-1] if ImageFolder(tmp_path).find(name)]
    reasons = {name: found.reason for name, found in zip(names, others, strict=False)}
    assert guessed and all("could also be" in reasons[name] for name in guessed)


def test_two_listed_names_that_would_be_guessed_alike_get_nothing(tmp_path):
    put(tmp_path, "Baroque/m_ller_a.jpg")
    found = ImageFolder(tmp_path).look_up_all(["Baroque/möller_a.jpg", "Baroque/müller_a.jpg"])
    assert [part.paths for part in found] == [[], []]


def test_one_artwork_may_be_listed_in_two_spellings(tmp_path):
    path = put(tmp_path, "Cubism/andr-lhote_a.jpg")
    found = ImageFolder(tmp_path).look_up_all(["Cubism/andrã©-lhote_a.jpg", "Cubism/andra(c)-lhote_a.jpg"])
    assert [part.paths for part in found] == [[path], [path]]


def test_whole_names_that_differ_are_not_guessed(tmp_path):
    put(tmp_path, "Baroque/müller_a.jpg")
    assert ImageFolder(tmp_path).find("Baroque/möller_a.jpg") is None


def test_the_folder_of_the_exact_name_comes_first(tmp_path):
    lower, upper = put(tmp_path, "baroque/a.jpg"), put(tmp_path, "Baroque/a.jpg")
    assert ImageFolder(tmp_path).look_up("baroque/a.jpg").paths == [lower, upper]
    assert ImageFolder(tmp_path).look_up("Baroque/a.jpg").paths == [upper, lower]
