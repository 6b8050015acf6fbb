"""The csv that says what became of every image."""

import csv
import os

import pytest
from PIL import Image

from preprocess.image_folder import ImageFolder
from preprocess.image_manifest import manifest


def put(root, name, size=(8, 6), mode="RGB", **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


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
    tally = manifest(ImageFolder(root), names, tmp_path / "manifest.csv", decode=True, jobs=jobs)
    assert tally == ({"": 1, "ambiguous": 1, "unreadable": 2, "missing": 1}, 0, 0)
    with open(tmp_path / "manifest.csv", newline="") as file:
        rows = {row["image_name"]: row for row in csv.DictReader(file)}
    assert list(rows) == names
    assert (rows[names[0]]["width"], rows[names[0]]["height"], rows[names[0]]["problem"]) == ("20", "10", "")
    assert rows[names[0]]["found_path"] == str(root / names[0])
    assert "twice (1).jpg" in rows[names[1]]["problem"]
    assert rows[names[3]]["problem"] == "missing"
    assert rows[names[4]]["problem"] == "unreadable (known to be corrupt in the public WikiArt archive)"


def test_manifest_says_how_files_were_found(tmp_path):
    on_disk = {
        "Cubism/andrã©-lhote_la-plage-1920.jpg": "Cubism/andr-lhote_la-plage-1920.jpg",
        "Romanticism/pierre-paul-prud'hon_head.jpg": "Romanticism/pierre-paul-prud’hon_head.jpg",
        "Pop_Art/plain_name(1).jpg": "Pop_Art/plain_name_1_.jpg",
        "Impressionism/joaquã\xadn-sorolla_beach.jpg": "Impressionism/joaqui\u0301n-sorolla_beach.jpg",
        "Impressionism/édouard-manet_bar.jpg": os.fsdecode("Impressionism/édouard-manet_bar.jpg".encode("latin-1")),
        "Baroque/same_name.jpg": "Baroque/same_name.jpg",
    }
    for name in on_disk.values():
        put(tmp_path, name)
    tally = manifest(ImageFolder(tmp_path), [*on_disk, "Baroque/gone.jpg"], tmp_path / "manifest.csv")
    with open(tmp_path / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [str(tmp_path / name).replace("\udce9", r"\udce9") for name in on_disk.values()]
    assert [row["found_path"] for row in rows] == [*paths, ""]
    assert [row["found_by"] for row in rows] == [
        "artist's damaged name",
        "artist's damaged name",
        "odd characters replaced",
        "mojibake undone",
        "mojibake undone",
        "exact name",
        "",
    ]
    line = tally.line(tmp_path / "manifest.csv", "the complete archive has all")
    assert line.startswith(
        "WARNING: 7 images: 6 without a problem, 1 missing, 0 unreadable, 0 ambiguous; 5 spelled differently from the list "
        "(3 of them guessed); the complete archive has all"
    )
