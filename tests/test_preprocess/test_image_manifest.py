"""The csv that says for every image whether and how it was found."""

import csv
import os

from PIL import Image

from preprocess.image_manifest import manifest_rows, measure, write_manifest
from preprocess.image_names import ImageFolder


def put(root, name, size=(8, 6)):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def make_manifest(root, names, path):
    """Returns the counts, and the file's rows by image name."""
    counts = write_manifest(path, map(measure, manifest_rows(ImageFolder(root), names)))
    with open(path, newline="", encoding="utf-8") as file:
        return counts, {row["image_name"]: row for row in csv.DictReader(file)}


def test_problems_and_sizes(tmp_path):
    root = tmp_path / "images"
    put(root, "Baroque/good.jpg", size=(20, 10))
    put(root, "Baroque/twice.jpg")
    put(root, "Baroque/twice (1).jpg")
    corrupt = "rembrandt_woman-standing-with-raised-hands.jpg"
    (root / "Baroque" / corrupt).write_bytes(b"")
    names = [f"Baroque/{name}" for name in ("good.jpg", "twice.jpg", "gone.jpg", corrupt)]
    counts, rows = make_manifest(root, names, tmp_path / "manifest.csv")
    assert counts == ({"": 1, "ambiguous": 1, "unreadable": 1, "missing": 1}, 0, 0)
    good, twice, gone, unreadable = rows.values()
    assert list(rows) == names
    assert (good["width"], good["height"], good["problem"]) == ("20", "10", "")
    assert good["found_path"] == str(root / names[0])
    assert "twice (1).jpg" in twice["problem"]
    assert gone["problem"] == "missing"
    assert unreadable["problem"] == "unreadable (known to be corrupt in the public WikiArt archive)"


def test_how_files_were_found(tmp_path):
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
    counts, rows = make_manifest(tmp_path, [*on_disk, "Baroque/gone.jpg"], tmp_path / "manifest.csv")
    paths = [str(tmp_path / name).replace("\udce9", r"\udce9") for name in on_disk.values()]
    assert [row["found_path"] for row in rows.values()] == [*paths, ""]
    assert [row["found_by"] for row in rows.values()] == [
        "artist's damaged name",
        "artist's damaged name",
        "odd characters replaced",
        "mojibake undone",
        "mojibake undone",
        "exact name",
        "",
    ]
    line = counts.line(tmp_path / "manifest.csv", "the complete archive has all")
    assert line.startswith(
        "WARNING: 7 images: 6 without a problem, 1 missing, 0 unreadable, 0 ambiguous; 5 spelled differently from the list "
        "(3 of them guessed); the complete archive has all"
    )
