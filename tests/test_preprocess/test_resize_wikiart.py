"""preprocess/resize_wikiart.py: sizes, orientation, names, links, nested archives, kills (refusals: test_refusals.py)."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from preprocess import resize_wikiart
from preprocess.resize_wikiart import annotated_names, main
from tests.conftest import REPOSITORY
from tests.test_preprocess.helpers import read, save_image, write_table
from utils.data.images import open_image
from utils.errors import InputError

# EXIF orientation -> how the stored pixels are turned
TURNED = {
    1: np.copy,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: np.rot90,
}


def run(source, out_dir, *more):
    """Resize in one process."""
    main([*map(str, ("--wikiart_dir", source, "--out_dir", out_dir, *more)), "--jobs", "1"])


def noise(height, width):
    """Eight times as coarse as pixels, so that it outlives JPEG."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def distance(image, expected):
    """The mean difference of two RGB images of equal sizes, in 0 .. 255."""
    assert image.mode == expected.mode == "RGB" and image.size == expected.size
    return np.mean(ImageStat.Stat(ImageChops.difference(image, expected)).mean)


def problems(folder):
    rows = read(folder / "manifest.csv")
    return dict(zip(rows["image_name"], rows["problem"].str.partition(";")[0], strict=True))


# ---- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "size", "quality"), [("", (600, 467), 95), ("--quality 90 --max_size 300", (300, 233), 90)]
)
def test_lanczos_at_the_requested_size_and_quality(tmp_path, flags, size, quality):
    (tmp_path / "in").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 4), dtype=np.uint8))
    image.save(tmp_path / "in/a.png")  # transparency is dropped, as in training
    run(tmp_path / "in", tmp_path / "out", *flags.split())
    image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(tmp_path / "expected.jpg", quality=quality)
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
        ((6000, 1), (600, 1)),
    ],
)
def test_target_size(size, expected):
    assert resize_wikiart.target_size(*size, 600) == expected


@pytest.mark.parametrize("choice", ["apply", "ignore"])
def test_the_eight_orientations(tmp_path, choice):
    """Training reads the chosen orientation: nothing is left to be turned. Sizes in the manifest are those."""
    stored = noise(64, 96)
    (tmp_path / "in").mkdir()
    for orientation in TURNED:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / f"in/{orientation}.jpg", exif=exif, quality=95)
    run(tmp_path / "in", tmp_path / "out", *(["--exif_orientation", choice] if choice == "ignore" else []))
    manifest = read(tmp_path / "out/manifest.csv").set_index("image_name")
    for orientation, turned in TURNED.items():
        expected = turned(stored) if choice == "apply" else stored
        resized = open_image(tmp_path / f"out/{orientation}.jpg")
        assert distance(resized, Image.fromarray(np.ascontiguousarray(expected))) < 25, orientation
        row = manifest.loc[f"{orientation}.jpg"]
        assert (int(row["width"]), int(row["height"])) == resized.size


def test_a_huge_jpeg_is_not_decoded_too_small(tmp_path, monkeypatch):
    """It is decoded at a fraction of its size, but at twice the wanted one at least: no detail is lost."""
    monkeypatch.setattr(resize_wikiart, "MANY_PIXELS", 10_000)
    stripes = Image.fromarray(np.tile(np.uint8([[0] * 16 + [255] * 16]), (1600, 50))).convert("RGB")
    (tmp_path / "in").mkdir()
    stripes.save(tmp_path / "in/a.jpg", quality=95)
    run(tmp_path / "in", tmp_path / "out", "--max_size", 400)
    assert distance(Image.open(tmp_path / "out/a.jpg"), stripes.resize((400, 400), Image.Resampling.LANCZOS)) < 8


@pytest.mark.slow
def test_an_image_of_hundreds_of_millions_of_pixels_is_resized(tmp_path):
    """Pillow's own limit would refuse it."""
    (tmp_path / "in").mkdir()
    Image.new("L", (20_000, 10_100), 99).save(tmp_path / "in/a.jpg")
    run(tmp_path / "in", tmp_path / "out")
    assert Image.open(tmp_path / "out/a.jpg").size == (600, 303)


# ---- interrupted runs ------------------------------------------------------------------------------------------------


def test_a_second_run_does_what_is_missing_or_damaged_and_nothing_else(tmp_path, capsys):
    source, target = tmp_path / "wikiart", tmp_path / "small"
    for name, size in {"wide": (900, 300), "tall": (200, 800), "small": (60, 50)}.items():
        save_image(source / f"Baroque/{name}.jpg", size)
    whole = (source / "Baroque/wide.jpg").read_bytes()
    (source / "Baroque/cut.jpg").write_bytes(whole[: len(whole) // 2])
    run(source, target, "--manifest", tmp_path / "list.csv")
    assert "4 images: 3 without a problem, 0 missing, 1 unreadable" in capsys.readouterr().out
    rows = read(tmp_path / "list.csv")
    assert "cut.jpg" in rows.loc[rows["image_name"] == "Baroque/cut.jpg", "problem"].item()
    sizes = {path.stem: Image.open(path).size for path in target.rglob("*.*")}
    assert sizes == {"wide": (600, 200), "tall": (150, 600), "small": (60, 50)}

    (target / "Baroque/tall.jpg").unlink()
    (target / "Baroque/small.jpg").write_bytes(b"half")
    before = (target / "Baroque/wide.jpg").stat().st_mtime_ns
    run(source, target)
    assert (target / "Baroque/wide.jpg").stat().st_mtime_ns == before
    assert {path.stem: Image.open(path).size for path in target.rglob("*.jpg")} == sizes


KILLED = """
import multiprocessing, os, signal, sys
from PIL import Image
from preprocess.resize_wikiart import main

def save(image, path, *args, save=Image.Image.save, saved=[], **kwargs):
    save(image, path, *args, **kwargs)
    saved.append(path)
    if len(saved) == 5:  # in the middle of the fifth file
        os.truncate(path, 99)
        os.killpg(0, signal.SIGKILL)

multiprocessing.set_start_method("fork")  # the processes save so, too
Image.Image.save = save
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_is_continued(tmp_path):
    source, killed, whole = tmp_path / "wikiart", tmp_path / "killed", tmp_path / "whole"
    for number in range(9):
        save_image(source / f"Baroque/{number}.jpg", (40 + number, 30))
    flags = ["--wikiart_dir", source, "--out_dir", killed, "--jobs", "2"]
    done = subprocess.run([sys.executable, "-c", KILLED, *flags], cwd=REPOSITORY, start_new_session=True)
    made = {path: path.stat().st_mtime_ns for path in killed.glob("Baroque/[0-9]*.jpg")}
    assert done.returncode == -signal.SIGKILL and len(made) == 4 and not (killed / "manifest.csv").exists()
    run(source, killed)
    run(source, whole)
    assert all(path.stat().st_mtime_ns == time_made for path, time_made in made.items())
    for number in range(9):
        name = f"Baroque/{number}.jpg"
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


# ---- names -----------------------------------------------------------------------------------------------------------


def test_annotated_artworks_are_named_as_annotated(tmp_path, capsys):
    """Each image under its own name, though two names are damaged; every image has another size."""
    source, target = tmp_path / "wikiart", tmp_path / "small"
    size_of = {"josé_é": (30, 20), "möller": (50, 10), "plain": (7, 9), "not-annotated": (5, 5)}
    for name, size in size_of.items():
        save_image(source / "Baroque" / f"{name.replace('é', '#U00e9').replace('ö', '_')}.jpg", size)
    header = ("art_style", "painting")
    first = write_table(tmp_path / "a.csv", [("Baroque", "möller"), ("Baroque", "josé_é"), ("Baroque", "gone")], header)
    second = write_table(tmp_path / "b.csv", [("Baroque", "plain"), ("Baroque", "möller")], header)
    release = ("--release_csv", first, second)
    run(source, target, *release)
    sizes = {path.stem: Image.open(path).size for path in (target / "Baroque").iterdir()}
    assert sizes == {name: size for name, size in size_of.items() if name != "not-annotated"}
    assert capsys.readouterr().out.startswith("WARNING: 4 images: 3 without a problem, 1 missing")
    with pytest.raises(InputError, match="1 artworks have no image, see .*manifest.csv"):
        run(source, target, *release, "--require_images")
    assert annotated_names([first, second]) == [f"Baroque/{name}.jpg" for name in ("gone", "josé_é", "möller", "plain")]


def test_two_files_of_one_name_and_results_inside_the_archive(tmp_path):
    """The first is taken, the second reported; earlier results are no sources."""
    wiki = tmp_path / "wiki"
    for name, size in {"Cubism/a.jpg": (9, 6), "Cubism/a.png": (5, 5), "small/Cubism/a.jpg": (9, 6)}.items():
        save_image(wiki / name, size)
    run(wiki, wiki / "small")
    assert problems(wiki / "small") == {"Cubism/a.jpg": "", "Cubism/a.png": "ambiguous (same name as a.jpg)"}
    assert Image.open(wiki / "small/Cubism/a.jpg").size == (9, 6) and not (wiki / "small/small").exists()


def test_links_and_system_files(tmp_path, capsys):
    """A style on another disk, an image in a store, one that was not fetched, a style whose disk is not mounted."""
    wiki = tmp_path / "wiki"
    for name in ("disk/Baroque/a.jpg", "wiki/Cubism/a.jpg"):
        save_image(tmp_path / name)
    save_image(tmp_path / "store/a.jpg").rename(tmp_path / "store/0a1b2c")
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
    rows = [name.removesuffix(".jpg").split("/") for name in names]
    write_table(tmp_path / "release.csv", rows, ("art_style", "painting"))
    run(wiki, tmp_path / "listed", "--release_csv", tmp_path / "release.csv")
    others = {"Rococo/b.jpg": f"missing ({wiki}/Rococo is a broken link", "Cubism/._a.jpg": "missing"}
    assert problems(tmp_path / "listed") == images | broken | others


def test_the_archive_may_be_nested(tmp_path):
    """`wikiart.zip` holds `wikiart/` beside tables, and people unpack it into one more; a single style is not nested."""
    for name in ("Baroque/a.jpg", "Cubism/b.jpg"):
        save_image(tmp_path / "WikiArt/wikiart/wikiart" / name)
    save_image(tmp_path / "WikiArt/__MACOSX/wikiart/Cubism/._b.jpg")
    save_image(tmp_path / "WikiArt/.thumbnails/large/b.jpg")
    (tmp_path / "WikiArt/wikiart/wikiart_csv").mkdir()
    (tmp_path / "WikiArt/wikiart/wikiart_csv/style_class.txt").write_text("0 Baroque\n")
    save_image(tmp_path / "one/Cubism/b.jpg")
    (tmp_path / "release.csv").write_text("art_style,painting\nBaroque,a\nCubism,b\n")
    for source, more, found in (
        ("WikiArt", ("--release_csv", tmp_path / "release.csv"), {"Baroque/a.jpg", "Cubism/b.jpg"}),
        ("WikiArt", (), {"Baroque/a.jpg", "Cubism/b.jpg"}),
        ("one", (), {"Cubism/b.jpg"}),
    ):
        out = tmp_path / "out" / f"{source}{len(more)}"
        run(tmp_path / source, out, *more)
        assert problems(out) == dict.fromkeys(found, "")
