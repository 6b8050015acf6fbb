"""The csv that says for every image whether and how it was found."""

import os

from preprocess.image_manifest import manifest_rows, measure, write_manifest
from preprocess.image_names import ImageFolder
from tests.test_preprocess.helpers import read, save_image


def make_manifest(root, names):
    """Returns the counts, and the file's rows."""
    path = root.parent / "manifest.csv"
    counts = write_manifest(path, map(measure, manifest_rows(ImageFolder(root), names)))
    rows = read(path)
    assert rows["image_name"].tolist() == names
    return counts, rows


def test_problems_and_sizes(tmp_path):
    root = tmp_path / "images"
    save_image(root / "Baroque/good.jpg", (20, 10))
    for name in ("twice.jpg", "twice (1).jpg"):
        save_image(root / "Baroque" / name)
    corrupt = "rembrandt_woman-standing-with-raised-hands.jpg"
    for name in (corrupt, "other.jpg"):
        (root / "Baroque" / name).write_bytes(b"")
    names = [f"Baroque/{name}" for name in ("good.jpg", "twice.jpg", "gone.jpg", corrupt, "other.jpg")]
    counts, rows = make_manifest(root, names)
    assert counts == ({"": 1, "ambiguous": 1, "unreadable": 2, "missing": 1}, 0, 0)
    assert rows.loc[0].tolist() == [names[0], str(root / names[0]), "20", "10", "", "exact name"]
    expected = [
        "ambiguous (also twice (1).jpg)",
        "missing",
        "unreadable (known to be corrupt in the public WikiArt archive)",
    ]
    assert (
        rows["problem"].tolist()[1:4] == expected and "other.jpg: unreadable image (it is empty" in rows["problem"][4]
    )


def test_how_files_were_found(tmp_path):
    on_disk = {
        "Cubism/andrã©-lhote_la-plage-1920.jpg": "Cubism/andr-lhote_la-plage-1920.jpg",
        "Romanticism/pierre-paul-prud'hon_head.jpg": "Romanticism/pierre-paul-prud’hon_head.jpg",
        "Pop_Art/plain_name(1).jpg": "Pop_Art/plain_name_1_.jpg",
        "Impressionism/joaquã\xadn-sorolla_beach.jpg": "Impressionism/joaqui\u0301n-sorolla_beach.jpg",
        "Impressionism/édouard-manet_bar.jpg": os.fsdecode("Impressionism/édouard-manet_bar.jpg".encode("latin-1")),
        "Baroque/same_name.jpg": "Baroque/same_name.jpg",
    }
    root = tmp_path / "images"
    for name in on_disk.values():
        save_image(root / name)
    # a guess that another name of the list claims is none
    counts, rows = make_manifest(root, [*on_disk, "Baroque/gone.jpg", "Pop_Art/plain_name{1}.jpg"])
    assert rows["problem"].tolist()[-2:] == [
        "missing",
        "missing (plain_name_1_.jpg could also be Pop_Art/plain_name(1).jpg)",
    ]
    paths = [str(root / name).replace("\udce9", r"\udce9") for name in on_disk.values()]
    paths[2] = ""
    assert rows["found_path"].tolist() == [*paths, "", ""]
    damaged, mojibake = "artist's damaged name", "mojibake undone"
    assert rows["found_by"].tolist() == [damaged, damaged, "", mojibake, mojibake, "exact name", "", ""]
    line = counts.line(tmp_path / "manifest.csv", "the complete archive has all")
    assert line.startswith(
        "WARNING: 8 images: 5 without a problem, 3 missing, 0 unreadable, 0 ambiguous; 4 with another spelling or extension than in the list "
        "(2 of them guessed); the complete archive has all, 2 of them unreadable; "
    )
    assert "; training needs all of them; " in counts.line(tmp_path, None)
