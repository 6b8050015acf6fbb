"""From an annotation's name to a file: equal spellings, guesses, and what must not be taken for it."""

import os
import time
import unicodedata

import pytest

from preprocess import image_folder
from preprocess.image_folder import ImageFolder
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
        ("Baroque/st.-george-(1).jpg", "Baroque/st.-george- (1).jpg"),
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
    folder = ImageFolder(tmp_path)
    assert folder.find(annotated) == path
    assert folder.candidates(annotated) == [path]


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
    assert ImageFolder(tmp_path).candidates(NFC) == paths
    for index, path in enumerate(paths[:-1]):
        path.unlink()
        assert ImageFolder(tmp_path).find(NFC) == paths[index + 1]


def test_numbered_paintings_are_artworks_of_their_own(tmp_path):
    first, second = put(tmp_path, "Cubism/still-life.jpg"), put(tmp_path, "Cubism/still-life(1).jpg")
    folder = ImageFolder(tmp_path)
    assert folder.candidates("Cubism/still-life.jpg") == [first]
    assert folder.candidates("Cubism/still-life(1).jpg") == [second]
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
    assert folder.find("Baroque/\ud800\udce9.jpg") is None  # halves of characters
    with pytest.raises(InputError, match="no such image folder"):
        ImageFolder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../secret.jpg", "Baroque/../../secret.jpg", "/etc/secret.jpg", "", "a\0.jpg"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    put(tmp_path, "secret.jpg")
    put(tmp_path, "images/Baroque/a.jpg")
    with pytest.raises(InputError, match="leads out"):
        ImageFolder(tmp_path / "images").find(name)


def test_links_are_followed(tmp_path):
    outside, inside = put(tmp_path, "disk/b.jpg"), put(tmp_path, "images/Baroque/a.jpg")
    (tmp_path / "images/Baroque/out.jpg").symlink_to(outside)
    (tmp_path / "images/Baroque/in.jpg").symlink_to(inside)
    (tmp_path / "images/Rococo").symlink_to(tmp_path / "disk")
    (tmp_path / "alias").symlink_to(tmp_path / "images")
    folder = ImageFolder(tmp_path / "alias")
    for name in ("Baroque/in.jpg", "Baroque/out.jpg", "Rococo/b.jpg", "rococo/B.png"):
        assert folder.find(name).is_file()


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    """As git-annex and DVC leave for files they have not fetched, and disks that are not mounted."""
    put(tmp_path, "Baroque/a.jpg")
    (tmp_path / "Baroque/b.jpg").symlink_to("../.git/annex/objects/b.jpg")
    (tmp_path / "Rococo").symlink_to("/nowhere/Rococo")
    folder = ImageFolder(tmp_path)
    for name, link in (("Baroque/b.jpg", "Baroque/b.jpg"), ("Rococo/c.jpg", "Rococo")):
        found = folder.look_up(name)
        assert not found.paths and found.doubt.startswith(f"{tmp_path / link} is a link that leads nowhere")
    assert not folder.look_up("Baroque/c.jpg").doubt


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
        ("Baroque/a(1).jpg", "Baroque/a (1).jpg", "blank before the number"),
        ("Cubism/andra(c)-lhote_a.jpg", "Cubism/andr-lhote_a.jpg", "artist's damaged name"),
        (NFC, "Baroque/jose-cafe.jpg", "letters without accents"),
        (NFC, "Baroque/jos__-caf__.jpg", "odd characters replaced"),
        (NFC, "Baroque/jos-caf.jpg", "odd characters dropped"),
    ],
)
def test_it_is_told_how_a_file_was_found(tmp_path, annotated, on_disk, found_by):
    path = put(tmp_path, on_disk)
    assert ImageFolder(tmp_path).look_up(annotated) == ([path], found_by, "")


def test_a_guess_needs_a_single_file(tmp_path):
    put(tmp_path, "Cubism/andr-lhote_a.jpg")
    put(tmp_path, "Cubism/andré-lhote_a.jpg")
    found = ImageFolder(tmp_path).look_up("Cubism/andra(c)-lhote_a.jpg")
    assert not found.paths and found.doubt == "could be andr-lhote_a.jpg or andré-lhote_a.jpg"


@pytest.mark.parametrize(
    "names",
    [
        ["Baroque/möller_a.jpg", "Baroque/moller_a.jpg"],  # the second is there by its own name
        ["Baroque/m-ller_a.jpg", "Baroque/möller_a.jpg", "Baroque/müller_a.jpg", "Baroque/mller_a.jpg"],
    ],
)
def test_a_guess_is_dropped_where_the_file_is_another_listed_artwork(tmp_path, names):
    path = put(tmp_path, names[-1])
    folder = ImageFolder(tmp_path)
    assert folder.find(names[1 if len(names) > 2 else 0]) == path
    folder.claim(names)
    assert folder.find(names[-1]) == path
    for name in names[:-1]:
        assert folder.find(name) is None
    assert "could also be" in folder.look_up(names[-3 if len(names) > 2 else 0]).doubt


def test_two_listed_names_that_would_be_guessed_alike_get_nothing(tmp_path):
    put(tmp_path, "Baroque/m_ller_a.jpg")
    folder, names = ImageFolder(tmp_path), ["Baroque/möller_a.jpg", "Baroque/müller_a.jpg"]
    folder.claim(names)
    assert [folder.find(name) for name in names] == [None, None]


def test_one_artwork_may_be_listed_in_two_spellings(tmp_path):
    path = put(tmp_path, "Cubism/andr-lhote_a.jpg")
    folder, names = ImageFolder(tmp_path), ["Cubism/andrã©-lhote_a.jpg", "Cubism/andra(c)-lhote_a.jpg"]
    folder.claim(names)
    assert [folder.find(name) for name in names] == [path, path]


def test_plain_names_take_the_short_way(tmp_path, monkeypatch):
    names = [f"Baroque/painter_{index}.jpg" for index in range(20)]
    for name in names:
        put(tmp_path, name)
    folder = ImageFolder(tmp_path)
    for slow in ("spellings", "clues", "identity"):
        monkeypatch.setattr(image_folder, slow, lambda stem: pytest.fail(f"{stem} was taken apart"))
    folder.claim(names)
    assert [folder.find(name) for name in names] == [tmp_path / name for name in names]


def test_the_short_way_takes_no_other_name(tmp_path):
    put(tmp_path, "secret.jpg")
    put(tmp_path, "images/Baroque/a.jpg")
    folder = ImageFolder(tmp_path / "images")
    for name in ("../secret.jpg", "Baroque/../../secret.jpg", str(tmp_path / "secret.jpg")):
        assert folder.exact(name) is None
    for name in ("Baroque/a.jpg/.", "Baroque/a.jpg/a.jpg", "Baroque", "Baroque/", "Baroque/A.jpg", "a.jpg", ""):
        assert folder.exact(name) is None
    for name in ("Baroque/a.jpg", "Baroque//a.jpg", "./Baroque/a.jpg"):
        assert folder.exact(name) == str(tmp_path / "images/Baroque/a.jpg")


def test_only_regular_files_are_images(tmp_path):
    put(tmp_path, "Baroque/a.jpg")
    os.mkfifo(tmp_path / "Baroque/pipe.jpg")
    (tmp_path / "Baroque/folder.jpg").mkdir()
    (tmp_path / "Baroque/null.jpg").symlink_to(os.devnull)
    (tmp_path / "Baroque/circle.jpg").symlink_to("circle.jpg")
    folder = ImageFolder(tmp_path)
    for name in ("pipe", "folder", "null", "circle"):
        assert folder.find(f"Baroque/{name}.jpg") is None


@pytest.mark.parametrize("filling", [" ", "(", "é(1)", "#U00e9", "%", "&", "\u0301", "_"])
def test_names_of_any_length_are_answered_at_once(tmp_path, filling):
    put(tmp_path, "Baroque/é.jpg")
    folder, start = ImageFolder(tmp_path), time.perf_counter()
    for length in (300, 3_000):  # longer than any file's
        assert folder.find(f"Baroque/f{filling * (length // len(filling))}.jpg") is None
    for name in (f"Baroque/{filling * 200_000}(1).jpg", "a" * 1_000_000):
        with pytest.raises(InputError, match="is too long") as refusal:
            folder.find(name)
        assert len(str(refusal.value)) < 1000
    assert time.perf_counter() - start < 5


def test_a_root_of_any_length_is_refused():
    with pytest.raises(InputError, match="no such image folder") as refusal:
        ImageFolder("a" * 100_000)
    assert len(str(refusal.value)) < 300


def test_what_is_another_artwork_is_not_guessed(tmp_path):
    put(tmp_path, "Baroque/müller_a.jpg")
    dropped = put(tmp_path, "Baroque/max_title1.jpg")
    assert ImageFolder(tmp_path).find("Baroque/möller_a.jpg") is None  # both names are whole, and they differ
    assert ImageFolder(tmp_path).find("Baroque/max_title(1).jpg") == dropped
    put(tmp_path, "Baroque/max_another(1).jpg")  # nobody has dropped brackets here
    assert ImageFolder(tmp_path).find("Baroque/max_title(1).jpg") is None


def test_claims_add_up(tmp_path):
    """Whether or not a guess was made between them."""
    path = put(tmp_path, "Baroque/moller_a.jpg")
    for between in ([], ["Baroque/möller_a.jpg"]):
        folder = ImageFolder(tmp_path)
        folder.claim(["Baroque/moller_a.jpg"])
        for name in between:
            assert folder.find(name) is None
        folder.claim(["Baroque/another.jpg"])
        assert folder.find("Baroque/möller_a.jpg") is None and folder.find("Baroque/moller_a.jpg") == path


def test_the_short_way_is_closed_where_two_folders_fit(tmp_path):
    """The exact name in the folder spelled otherwise is not taken before the folder of that name."""
    put(tmp_path, "baroque/a.jpg")
    put(tmp_path, "Baroque/b.jpg")
    folder = ImageFolder(tmp_path)
    assert folder.find("BAROQUE/a.jpg") == tmp_path / "baroque/a.jpg"
    assert folder.find("BAROQUE/b.jpg") == tmp_path / "Baroque/b.jpg"
    assert folder.exact("BAROQUE/a.jpg") is None and folder.exact("BAROQUE/b.jpg") is None
