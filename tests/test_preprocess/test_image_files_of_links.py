"""Folders as they lie on users' disks: links, loops of links, and what other systems leave behind."""

import csv
import os

from PIL import Image

from preprocess import resize_wikiart
from utils.data.images import image_files

STYLES = "art_style,painting\n"


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 30, 60)).save(path, "JPEG")


def linked(root):
    """A style on another disk, an image in a store, one that was not fetched, a style whose disk is not there, loops."""
    put(root / "disk/Baroque/a.jpg")
    put(root / "store/0a1b2c")
    put(root / "wiki/Cubism/a.jpg")
    (root / "wiki/Baroque").symlink_to("../disk/Baroque")
    (root / "wiki/Cubism/stored.jpg").symlink_to("../../store/0a1b2c")
    (root / "wiki/Cubism/absent.jpg").symlink_to("../../store/ffff")
    (root / "wiki/Rococo").symlink_to("/nowhere/Rococo")
    (root / "wiki/Cubism/up").symlink_to("..")
    (root / "disk/Baroque/self").symlink_to("self")
    (root / "wiki/Cubism/same.jpg").symlink_to("same.jpg")
    for name in ("Cubism/._a.jpg", "__MACOSX/Cubism/._a.jpg", ".trash/b.jpg", "Cubism/.DS_Store", "Thumbs.db"):
        (root / "wiki" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "wiki" / name).write_bytes(b"\0\5\x16\7")
    return root / "wiki"


def problems(folder):
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return {row["image_name"]: row["problem"].partition(";")[0] for row in csv.DictReader(file)}


def test_resizing_treats_links_alike_with_and_without_a_list_of_artworks(tmp_path, capsys):
    wiki = linked(tmp_path)
    flags = ["--wikiart_dir", str(wiki), "--jobs", "1"]
    resize_wikiart.main([*flags, "--out_dir", str(tmp_path / "all")])
    assert capsys.readouterr().out.startswith("WARNING: 7 images: 3 without a problem, 4 missing, 0 unreadable")
    nowhere = "missing ({} is a link that leads nowhere"
    common = {
        "Baroque/a.jpg": "",
        "Cubism/a.jpg": "",
        "Cubism/absent.jpg": nowhere.format(wiki / "Cubism/absent.jpg"),
        "Cubism/same.jpg": nowhere.format(wiki / "Cubism/same.jpg"),
        "Cubism/stored.jpg": "",
    }
    folders = {name: nowhere.format(wiki / name) for name in ("Baroque/self", "Rococo")}
    assert problems(tmp_path / "all") == common | folders

    names = [*common, "Rococo/b.jpg", "Cubism/._a.jpg"]
    rows = "".join(name.removesuffix(".jpg").replace("/", ",") + "\n" for name in names)
    (tmp_path / "release.csv").write_text(STYLES + rows)
    listed = ["--out_dir", str(tmp_path / "listed"), "--release_csv", str(tmp_path / "release.csv")]
    resize_wikiart.main([*flags, *listed])
    others = {"Rococo/b.jpg": nowhere.format(wiki / "Rococo"), "Cubism/._a.jpg": "missing"}
    assert problems(tmp_path / "listed") == common | others
    assert Image.open(tmp_path / "listed/Cubism/stored.jpg").size == (8, 6)


def test_two_folders_that_hold_each_other(tmp_path):
    for one, other in ("ab", "ba"):
        put(tmp_path / f"{one}/{one}.jpg")
        (tmp_path / one / other).symlink_to(f"../{other}")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    found = [str(path.relative_to(tmp_path)) for path in image_files(tmp_path)]
    assert found == ["a/a.jpg", "a/b/b.jpg", "b/a/a.jpg", "b/b.jpg"]


def test_the_archive_may_lie_in_folders_of_its_own(tmp_path):
    """`wikiart.zip` holds `wikiart/` beside tables, and people unpack it into one more; a single style is no such folder."""
    for name in ("Baroque/a.jpg", "Cubism/b.jpg"):
        put(tmp_path / "WikiArt/wikiart/wikiart" / name)
    put(tmp_path / "WikiArt/__MACOSX/wikiart/Cubism/._b.jpg")
    (tmp_path / "WikiArt/wikiart/wikiart_csv").mkdir()
    (tmp_path / "WikiArt/wikiart/wikiart_csv/style_class.txt").write_text("0 Baroque\n")
    put(tmp_path / "one/Cubism/b.jpg")
    (tmp_path / "release.csv").write_text(f"{STYLES}Baroque,a\nCubism,b\n")
    for source, more, found in (
        ("WikiArt", ("--release_csv", tmp_path / "release.csv"), {"Baroque/a.jpg", "Cubism/b.jpg"}),
        ("WikiArt", (), {"Baroque/a.jpg", "Cubism/b.jpg"}),
        ("one", (), {"Cubism/b.jpg"}),
    ):
        out = tmp_path / "out" / f"{source}{len(more)}"
        resize_wikiart.main([*map(str, ("--wikiart_dir", tmp_path / source, "--out_dir", out, *more)), "--jobs", "1"])
        assert set(problems(out)) == found and not any(problems(out).values())
