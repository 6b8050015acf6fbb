"""preprocess/resize_wikiart.py: sizes, orientation, names, links, nested archives, and refused flags."""

import csv

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageChops, ImageStat

from preprocess import resize_wikiart
from preprocess.resize_wikiart import main
from tests.bad_input import RELEASE_CSV, RELEASE_HEADER, check_accepted, check_refused
from utils.data.images import open_image
from utils.errors import InputError


def run(source, out_dir, *more):
    """Resize in one process."""
    main([*map(str, ("--wikiart_dir", source, "--out_dir", out_dir, *more)), "--jobs", "1"])


def put(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 60)).save(path, "JPEG")


def problems(folder):
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return {row["image_name"]: row["problem"].partition(";")[0] for row in csv.DictReader(file)}


@pytest.mark.parametrize("quality", [95, 90])
def test_lanczos_at_the_requested_quality(tmp_path, quality):
    """The file is PIL's Lanczos image at this quality, by default 95."""
    (tmp_path / "in").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8))
    image.save(tmp_path / "in/a.png")
    run(tmp_path / "in", tmp_path / "out", *([] if quality == 95 else ["--quality", quality]))
    image.resize((600, 467), Image.Resampling.LANCZOS).save(tmp_path / "expected.jpg", quality=quality)
    assert (tmp_path / "out/a.jpg").read_bytes() == (tmp_path / "expected.jpg").read_bytes()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((600, 600), (600, 600)),
        ((601, 600), (600, 599)),
        ((599, 20), (599, 20)),
        ((900, 700), (600, 467)),  # 466.7
        ((700, 900), (467, 600)),
        ((1, 6000), (1, 600)),
    ],
)
def test_target_size(size, expected):
    assert resize_wikiart.target_size(*size, 600) == expected


def test_sizes_modes_and_a_second_run(tmp_path, capsys):
    source, target = tmp_path / "wikiart", tmp_path / "small"
    for name, size in {"wide": (900, 300), "tall": (200, 800), "small": (60, 50), "thin": (3000, 1)}.items():
        put(source / f"Baroque/{name}.jpg", size)
    Image.new("CMYK", (700, 700)).save(source / "Baroque/cmyk.jpg")
    Image.new("I;16", (700, 70)).save(source / "Baroque/deep.png")
    whole = (source / "Baroque/wide.jpg").read_bytes()
    (source / "Baroque/cut.jpg").write_bytes(whole[: len(whole) // 2])

    run(source, target)
    assert "7 images: 6 without a problem, 0 missing, 1 unreadable" in capsys.readouterr().out
    sizes = {path.stem: Image.open(path).size for path in target.rglob("*.jpg")}
    assert sizes == {
        "wide": (600, 200),
        "tall": (150, 600),
        "small": (60, 50),
        "thin": (600, 1),
        "cmyk": (600, 600),
        "deep": (600, 60),
    }
    assert {Image.open(path).mode for path in target.rglob("*.jpg")} == {"RGB"}
    assert Image.open(target / "Baroque/wide.jpg").getpixel((300, 100)) == pytest.approx((200, 30, 60), abs=3)
    assert "cut.jpg" in problems(target)["Baroque/cut.jpg"]

    # a second run does what is missing or damaged, and nothing else
    (target / "Baroque/tall.jpg").unlink()
    (target / "Baroque/small.jpg").write_bytes(b"half")
    before = (target / "Baroque/wide.jpg").stat().st_mtime_ns
    run(source, target)
    assert (target / "Baroque/wide.jpg").stat().st_mtime_ns == before
    assert Image.open(target / "Baroque/tall.jpg").size == (150, 600)
    assert Image.open(target / "Baroque/small.jpg").size == (60, 50)


def test_a_huge_jpeg_is_not_decoded_too_small(tmp_path, monkeypatch):
    """It is decoded at a fraction of its size, but at twice the wanted one at least: no detail is lost."""
    monkeypatch.setattr(resize_wikiart, "MANY_PIXELS", 10_000)
    stripes = Image.fromarray(np.tile(np.uint8([[0] * 16 + [255] * 16]), (1600, 50))).convert("RGB")
    (tmp_path / "in").mkdir()
    stripes.save(tmp_path / "in/a.jpg", quality=95)
    run(tmp_path / "in", tmp_path / "out", "--max_size", 400)
    resized = Image.open(tmp_path / "out/a.jpg")
    whole = stripes.resize((400, 400), Image.Resampling.LANCZOS)
    assert resized.size == (400, 400) and ImageStat.Stat(ImageChops.difference(resized, whole)).mean[0] < 8


@pytest.mark.slow
def test_an_image_of_hundreds_of_millions_of_pixels_is_resized(tmp_path):
    """Pillow's own limit would refuse it."""
    (tmp_path / "in").mkdir()
    Image.new("L", (20_000, 18_100), 99).save(tmp_path / "in/a.jpg")
    run(tmp_path / "in", tmp_path / "out")
    assert Image.open(tmp_path / "out/a.jpg").size == (600, 543)


@pytest.mark.parametrize(
    ("choice", "size", "blue"), [("apply", (200, 600), (100, 20)), ("ignore", (600, 200), (20, 100))]
)
def test_exif_orientation(tmp_path, choice, size, blue):
    """Training reads the chosen orientation: nothing is left to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (900, 300), (255, 0, 0))
    stored.paste((0, 0, 255), (0, 0, 450, 300))
    (tmp_path / "in").mkdir()
    stored.save(tmp_path / "in/a.jpg", exif=exif)
    run(tmp_path / "in", tmp_path / "out", "--exif_orientation", choice)
    resized = open_image(tmp_path / "out/a.jpg")
    assert resized.size == size and resized.getpixel(blue)[2] > 250
    manifest = pd.read_csv(tmp_path / "out/manifest.csv")
    assert (manifest["width"] > manifest["height"]).item() == (choice == "ignore")


def test_annotated_artworks_are_named_as_annotated(tmp_path, capsys):
    source, target = tmp_path / "wikiart", tmp_path / "small"
    for name in ("jos#U00e9", "not-annotated"):
        put(source / f"Baroque/{name}.jpg")
    (tmp_path / "release.csv").write_text("art_style,painting\nBaroque,josé\nBaroque,gone\nBaroque,josé\n")
    release = ("--release_csv", tmp_path / "release.csv")
    run(source, target, *release)
    assert [path.name for path in (target / "Baroque").iterdir()] == ["josé.jpg"]
    assert capsys.readouterr().out.startswith("WARNING: 2 images: 1 without a problem, 1 missing")
    with pytest.raises(InputError, match="1 artworks have no image, see .*manifest.csv"):
        run(source, target, *release, "--require_images")
    with pytest.raises(InputError, match="--require_images needs --release_csv"):
        run(source, target, "--require_images")


def test_links_and_system_files(tmp_path, capsys):
    """A style on another disk, an image in a store, one that was not fetched, a style whose disk is not mounted."""
    wiki = tmp_path / "wiki"
    for name in ("disk/Baroque/a.jpg", "store/0a1b2c", "wiki/Cubism/a.jpg"):
        put(tmp_path / name)
    for name, target in {
        "Baroque": "../disk/Baroque",
        "Cubism/stored.jpg": "../../store/0a1b2c",
        "Cubism/absent.jpg": "../../store/ffff",
        "Rococo": "/nowhere/Rococo",
    }.items():
        (wiki / name).symlink_to(target)
    for name in ("Cubism/._a.jpg", "__MACOSX/Cubism/._a.jpg", "Cubism/.DS_Store", "Thumbs.db"):
        (wiki / name).parent.mkdir(parents=True, exist_ok=True)
        (wiki / name).write_bytes(b"\0\5\x16\7")
    images = {name: "" for name in ("Baroque/a.jpg", "Cubism/a.jpg", "Cubism/stored.jpg")}
    broken = {"Cubism/absent.jpg": f"missing ({wiki}/Cubism/absent.jpg is a broken link"}

    run(wiki, tmp_path / "all")
    assert capsys.readouterr().out.startswith("WARNING: 5 images: 3 without a problem, 2 missing, 0 unreadable")
    assert problems(tmp_path / "all") == images | broken | {"Rococo": f"missing ({wiki}/Rococo is a broken link"}

    names = [*images, *broken, "Rococo/b.jpg", "Cubism/._a.jpg"]
    rows = "".join(name.removesuffix(".jpg").replace("/", ",") + "\n" for name in names)
    (tmp_path / "release.csv").write_text("art_style,painting\n" + rows)
    run(wiki, tmp_path / "listed", "--release_csv", tmp_path / "release.csv")
    others = {"Rococo/b.jpg": f"missing ({wiki}/Rococo is a broken link", "Cubism/._a.jpg": "missing"}
    assert problems(tmp_path / "listed") == images | broken | others


def test_the_archive_may_be_nested(tmp_path):
    """`wikiart.zip` holds `wikiart/` beside tables, and people unpack it into one more; a single style is not nested."""
    for name in ("Baroque/a.jpg", "Cubism/b.jpg"):
        put(tmp_path / "WikiArt/wikiart/wikiart" / name)
    put(tmp_path / "WikiArt/__MACOSX/wikiart/Cubism/._b.jpg")
    (tmp_path / "WikiArt/wikiart/wikiart_csv").mkdir()
    (tmp_path / "WikiArt/wikiart/wikiart_csv/style_class.txt").write_text("0 Baroque\n")
    put(tmp_path / "one/Cubism/b.jpg")
    (tmp_path / "release.csv").write_text("art_style,painting\nBaroque,a\nCubism,b\n")
    for source, more, found in (
        ("WikiArt", ("--release_csv", tmp_path / "release.csv"), {"Baroque/a.jpg", "Cubism/b.jpg"}),
        ("WikiArt", (), {"Baroque/a.jpg", "Cubism/b.jpg"}),
        ("one", (), {"Cubism/b.jpg"}),
    ):
        out = tmp_path / "out" / f"{source}{len(more)}"
        run(tmp_path / source, out, *more)
        assert problems(out) == dict.fromkeys(found, "")


GOOD = "--wikiart_dir data/images --out_dir out --jobs 1"

# command line -> message
ARGV = {
    "--wikiart_dir gone --out_dir out": "gone: no such image folder; give the one",
    "--wikiart_dir data/artEmisX_cl_train.json --out_dir out": "no such image folder",
    "--wikiart_dir artemis --out_dir out --jobs 1": "artemis: contains none of the images; give",
    "--wikiart_dir data/images --out_dir data/images": "originals would be overwritten; give another",
    "--wikiart_dir data/images --jobs 1 --out_dir vit/config.json": "vit/config.json",
    f"{GOOD} --quality 50": "--quality: 50 is not between 90 and 100",
    f"{GOOD} --max_size 0": "--max_size: 0 is not between 1",
    f"{GOOD} --manifest data": "data: is a folder",
    f"{GOOD} --release_csv gone.csv": "gone.csv: no such file; give ArtEmis' release csv",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_refused_flags(box, argv, message):
    check_refused(box, main, argv, message)


def test_names_that_lead_out_of_the_folder_are_not_written(box):
    box.write(RELEASE_CSV, RELEASE_HEADER + "../..,p,awe,t,1\n")
    check_refused(box, main, f"{GOOD} --release_csv {RELEASE_CSV}", "contains none of the images")


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)
