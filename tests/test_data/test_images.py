"""Images as they are in the wild: what is opened and how, and what is refused."""

import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from utils.data.images import image_size, open_image
from utils.errors import InputError


def put(root, name, size=(8, 6), mode="RGB", **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_ordinary_images_are_converted_as_pillow_does(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(path)), expected)


def test_cmyk_and_sixteen_bits(tmp_path):
    cmyk = put(tmp_path, "cmyk.jpg", mode="CMYK")
    assert open_image(cmyk).mode == "RGB" and open_image(cmyk).getpixel((0, 0)) == (255, 255, 255)

    ramp = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "deep.png"))[..., 0], ramp >> 8)


# EXIF orientation -> how the stored pixels are turned
ORIENTATIONS = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.transpose(1, 0, 2), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_the_eight_orientations(tmp_path, extension):
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    for orientation, turned in ORIENTATIONS.items():
        path, exif = tmp_path / f"{orientation}.{extension}", Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(path, exif=exif)
        np.testing.assert_array_equal(np.asarray(open_image(path)), turned(stored))
        assert image_size(path) == open_image(path).size
        with Image.open(path) as plain:  # which turns TIFF files itself
            np.testing.assert_array_equal(np.asarray(open_image(path, apply_orientation=False)), np.asarray(plain))
        assert image_size(path, apply_orientation=False) == open_image(path, apply_orientation=False).size


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_without_its_end_marker(tmp_path, options):
    """One that lacks nothing else is read, whole and at a fraction of its size; one that lacks a byte more is not."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    whole, path = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    Image.fromarray(pixels).resize((300, 200)).save(whole, **options)
    content = whole.read_bytes()
    for missing in (1, 2):
        path.write_bytes(content[:-missing])
        for draft_size in (None, 64):
            expected = np.asarray(open_image(whole, draft_size))
            np.testing.assert_array_equal(np.asarray(open_image(path, draft_size)), expected)
    half = len(content) // 2
    for truncated in (content[:-3], content[:-4], content[:-40] + b"\xff", content[:-half] + bytes(half)):
        path.write_bytes(truncated)
        for draft_size in (None, 64):
            with pytest.raises(InputError, match="cut.jpg: unreadable image .*truncated"):
                open_image(path, draft_size)


def test_damaged_missing_and_too_large_images_are_refused(tmp_path, monkeypatch):
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


def test_other_formats_are_refused_and_start_nothing(tmp_path, monkeypatch):
    """Pillow would start Ghostscript on the first of these."""
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # forgets that there is none
    path = tmp_path / "image.jpg"
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    for content, kind in ((eps, "not in a format"), (b"", "empty"), (b"<!DOCTYPE html>", "a web page")):
        path.write_bytes(content)
        for reader in (open_image, image_size):
            with pytest.raises(InputError, match=f"image.jpg: unreadable image .*{kind}.*convert it"):
                reader(path)
    assert not (tmp_path / "started").exists()
