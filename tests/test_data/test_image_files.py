"""Annotation names against the spellings that WikiArt archives have, and pictures as they are in the wild."""

import csv
import unicodedata

import numpy as np
import pytest
from PIL import Image

from utils.data.image_files import ImageFolder, image_size, manifest, open_image
from utils.errors import InputError


def put(root, name, size=(8, 6), mode="RGB", **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
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
    path = put(tmp_path, on_disk, format="PNG")
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
    assert ImageFolder(tmp_path).find("Cubism/still-life.jpg") == second  # the last resort; a manifest says so
    counts = manifest(ImageFolder(tmp_path), ["Cubism/still-life.jpg"], tmp_path / "manifest.csv")
    assert counts == {"ambiguous": 1}


def test_what_is_absent_stays_absent(tmp_path):
    put(tmp_path, "Baroque/a.jpg")
    folder = ImageFolder(tmp_path)
    assert folder.find("Baroque/b.jpg") is None
    assert folder.find("Rococo/a.jpg") is None
    with pytest.raises(InputError, match="no such image folder"):
        ImageFolder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../secret.jpg", "Baroque/../../secret.jpg", "/etc/secret.jpg", "", "a\0.jpg"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    put(tmp_path, "secret.jpg")
    put(tmp_path, "images/Baroque/a.jpg")
    with pytest.raises(InputError, match="leads out"):
        ImageFolder(tmp_path / "images").find(name)


def test_links_out_of_the_folder_are_refused_and_links_inside_followed(tmp_path):
    secret, inside = put(tmp_path, "secret.jpg"), put(tmp_path, "images/Baroque/a.jpg")
    (tmp_path / "images/Baroque/out.jpg").symlink_to(secret)
    (tmp_path / "images/Baroque/in.jpg").symlink_to(inside)
    (tmp_path / "images/Rococo").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path / "images")
    folder = ImageFolder(tmp_path / "alias")
    assert folder.find("Baroque/in.jpg") is not None
    for name in ("Baroque/out.jpg", "Rococo/secret.jpg"):
        with pytest.raises(InputError, match="link out of"):
            folder.find(name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_ordinary_pictures_are_converted_as_pillow_does(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(path)), expected)


def test_cmyk_sixteen_bits_and_exif_rotation(tmp_path):
    cmyk = put(tmp_path, "cmyk.jpg", mode="CMYK")
    assert open_image(cmyk).mode == "RGB" and open_image(cmyk).getpixel((0, 0)) == (255, 255, 255)

    ramp = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "deep.png"))[..., 0], ramp >> 8)

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = put(tmp_path, "turned.jpg", size=(8, 6), exif=exif)
    assert open_image(turned).size == image_size(turned) == (6, 8)


def test_damaged_pictures_and_bombs_are_named(tmp_path, monkeypatch):
    whole = put(tmp_path, "whole.jpg", size=(200, 200))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:-300])
    text = tmp_path / "text.jpg"
    text.write_text("<html>not found</html>")
    for path in (cut, text, tmp_path / "absent.jpg"):
        with pytest.raises(InputError, match=path.name):
            open_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(InputError, match="whole.jpg.*too many pixels"):
        open_image(whole)


@pytest.mark.parametrize("jobs", [1, 2])
def test_manifest_says_what_is_wrong(tmp_path, jobs):
    root = tmp_path / "images"
    put(root, "Baroque/good.jpg", size=(20, 10))
    put(root, "Baroque/twice.jpg")
    put(root, "Baroque/twice (1).jpg")
    corrupt = "rembrandt_woman-standing-with-raised-hands.jpg"
    (root / "Baroque/cut.jpg").write_bytes(put(root, "whole.jpg", size=(200, 200)).read_bytes()[:-300])
    (root / "Baroque" / corrupt).write_bytes(b"")
    names = [f"Baroque/{name}" for name in ("good.jpg", "twice.jpg", "cut.jpg", "gone.jpg", corrupt)]
    counts = manifest(ImageFolder(root), names, tmp_path / "manifest.csv", decode=True, jobs=jobs)
    assert counts == {"": 1, "ambiguous": 1, "unreadable": 2, "missing": 1}
    with open(tmp_path / "manifest.csv", newline="") as file:
        rows = {row["image_name"]: row for row in csv.DictReader(file)}
    assert list(rows) == names
    assert (rows[names[0]]["width"], rows[names[0]]["height"], rows[names[0]]["problem"]) == ("20", "10", "")
    assert rows[names[0]]["found_path"] == str(root / names[0])
    assert "twice (1).jpg" in rows[names[1]]["problem"]
    assert rows[names[3]]["problem"] == "missing"
    assert rows[names[4]]["problem"] == "unreadable (known to be corrupt in the public WikiArt archive)"
