"""preprocess/resize_wikiart.py: sizes, orientation, names, links, nested archives, failures (refusals: test_refusals.py)."""

import os

import numpy as np
import pytest
from PIL import Image

from preprocess import resize_wikiart
from tests.test_preprocess.helpers import read, save_image, write_table
from utils.data.images import open_image
from utils.errors import InputError


def run(source, out_dir, *more):
    """Resize in one process."""
    resize_wikiart.main([*map(str, ("--wikiart_dir", source, "--out_dir", out_dir, *more)), "--jobs", "1"])


def distance(image, expected):
    """The mean difference of two images, in 0 .. 255."""
    return np.abs(np.asarray(image, dtype=int) - np.asarray(expected)).mean()


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


@pytest.mark.parametrize(("flags", "turned"), [((), -1), (("--exif_orientation", "ignore"), 0)])
def test_images_are_turned_upright_or_left_as_they_are_stored(tmp_path, flags, turned):
    """Nothing is left to be turned by what reads them. The manifest has the sizes that they had."""
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(stored).save(tmp_path / "in/a.jpg", exif=exif)
    run(tmp_path / "in", tmp_path / "out", "--max_size", 48, *flags)
    resized, (row,) = open_image(tmp_path / "out/a.jpg"), read(tmp_path / "out/manifest.csv").itertuples()
    assert resized.size == ((32, 48) if turned else (48, 32))
    assert distance(resized, np.rot90(stored[::2, ::2], turned)) < 5
    assert (int(row.width), int(row.height)) == (2 * resized.width, 2 * resized.height)


def test_a_huge_jpeg_is_not_decoded_too_small(tmp_path, monkeypatch):
    """It is decoded at a fraction of its size, but at twice the wanted one at least: no detail is lost."""
    monkeypatch.setattr(resize_wikiart, "MANY_PIXELS", 10_000)
    stripes = Image.fromarray(np.tile(np.uint8([[0] * 16 + [255] * 16]), (1600, 50))).convert("RGB")
    (tmp_path / "in").mkdir()
    stripes.save(tmp_path / "in/a.jpg", quality=95)
    run(tmp_path / "in", tmp_path / "out", "--max_size", 400)
    expected = stripes.resize((400, 400), Image.Resampling.LANCZOS)
    assert distance(Image.open(tmp_path / "out/a.jpg"), expected) < 8


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
    for name, size in {"wide": (900, 301), "thin": (1, 6000), "small": (60, 50)}.items():
        save_image(source / f"Baroque/{name}.jpg", size)
    whole = (source / "Baroque/wide.jpg").read_bytes()
    (source / "Baroque/cut.jpg").write_bytes(whole[: len(whole) // 2])
    run(source, target, "--manifest", tmp_path / "list.csv")
    assert "4 images: 3 without a problem, 0 missing, 1 unreadable" in capsys.readouterr().out
    rows = read(tmp_path / "list.csv")
    assert "cut.jpg" in rows.loc[rows["image_name"] == "Baroque/cut.jpg", "problem"].item()
    sizes = {path.stem: Image.open(path).size for path in target.rglob("*.*")}
    assert sizes == {"wide": (600, 201), "thin": (1, 600), "small": (60, 50)}

    (target / "Baroque/thin.jpg").unlink()
    (target / "Baroque/small.jpg").write_bytes(b"half")
    before = (target / "Baroque/wide.jpg").stat().st_mtime_ns
    run(source, target)
    assert (target / "Baroque/wide.jpg").stat().st_mtime_ns == before
    assert {path.stem: Image.open(path).size for path in target.rglob("*.jpg")} == sizes


def test_a_run_that_ends_in_the_middle_of_a_file_leaves_no_part_of_it(tmp_path, monkeypatch):
    """Of which a later run would read the size only."""
    save, out = Image.Image.save, tmp_path / "out"
    save_image(tmp_path / "in/a.jpg", (60, 50))

    def save_part(image, path, *args, **kwargs):
        save(image, path, *args, **kwargs)
        os.truncate(path, os.path.getsize(path) - 9)
        raise OSError("disk")

    monkeypatch.setattr(Image.Image, "save", save_part)
    with pytest.raises(OSError, match="disk"):
        run(tmp_path / "in", out)
    assert list(out.iterdir()) == []


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
    del size_of["not-annotated"]
    assert {path.stem: Image.open(path).size for path in (target / "Baroque").iterdir()} == size_of
    assert list(problems(target).values()) == ["missing", "", "", ""]
    assert capsys.readouterr().out.startswith("WARNING: 4 images: 3 without a problem, 1 missing")
    with pytest.raises(InputError, match="1 artworks have no image, see .*manifest.csv"):
        run(source, target, *release, "--require_images")


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
    (wiki / "Baroque").symlink_to("../disk/Baroque")
    (wiki / "Cubism/stored.jpg").symlink_to("../../store/0a1b2c")
    (wiki / "Cubism/absent.jpg").symlink_to("../../store/ffff")
    (wiki / "Rococo").symlink_to("/nowhere/Rococo")
    (wiki / "Cubism/._a.jpg").write_bytes(b"\0\5\x16\7")
    broken, unmounted = (f"missing ({wiki}/{name} is a broken link" for name in ("Cubism/absent.jpg", "Rococo"))
    expected = {name: "" for name in ("Baroque/a.jpg", "Cubism/a.jpg", "Cubism/stored.jpg")}
    expected["Cubism/absent.jpg"] = broken

    run(wiki, tmp_path / "all")
    assert capsys.readouterr().out.startswith("WARNING: 5 images: 3 without a problem, 2 missing, 0 unreadable")
    assert problems(tmp_path / "all") == expected | {"Rococo": unmounted}

    expected |= {"Rococo/b.jpg": unmounted, "Cubism/._a.jpg": "missing"}
    rows = [name.removesuffix(".jpg").split("/") for name in expected]
    write_table(tmp_path / "release.csv", rows, ("art_style", "painting"))
    run(wiki, tmp_path / "listed", "--release_csv", tmp_path / "release.csv")
    assert problems(tmp_path / "listed") == expected


@pytest.mark.parametrize("flags", [(), ("--release_csv", "release.csv")])
def test_the_archive_may_be_nested(tmp_path, monkeypatch, flags):
    """`wikiart.zip` holds `wikiart/` beside tables, and people unpack it into one more; a single style is not nested."""
    monkeypatch.chdir(tmp_path)
    names = ("Baroque/a.jpg", "Cubism/b.jpg")
    write_table(tmp_path / "release.csv", [("Baroque", "a"), ("Cubism", "b")], ("art_style", "painting"))
    for name in (*(f"wikiart/wikiart/{name}" for name in names), "__MACOSX/Cubism/._b.jpg", ".thumbnails/large/b.jpg"):
        save_image(tmp_path / "WikiArt" / name)
    (tmp_path / "WikiArt/wikiart/wikiart_csv").mkdir()
    run("WikiArt", "all", *flags)
    assert problems(tmp_path / "all") == dict.fromkeys(names, "")
    save_image(tmp_path / "one/Cubism/b.jpg")
    run("one", "single", *flags)
    assert problems(tmp_path / "single")["Cubism/b.jpg"] == ""
