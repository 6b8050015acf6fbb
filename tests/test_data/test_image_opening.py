"""Pictures as they are in the wild: what is opened, and what is refused without starting or awaiting anything."""

import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from utils.data.image_opening import image_size, open_image
from utils.errors import InputError


def put(root, name, size=(8, 6), mode="RGB", **options):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)
    return path


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


def test_another_format_in_disguise_is_named_and_starts_nothing(tmp_path, monkeypatch):
    """Pillow would start Ghostscript on the first of these."""
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # forgets that there is none
    path = tmp_path / "picture.jpg"
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    for content, kind in ((eps, "EPS"), (b"8BPS\0\1", "PSD"), (b"", "empty"), (b"<!DOCTYPE html>", "a web page")):
        path.write_bytes(content)
        for reader in (open_image, image_size):
            with pytest.raises(InputError, match=f"picture.jpg: unreadable image .*{kind}.*convert it"):
                reader(path)
    assert not (tmp_path / "started").exists()


def test_a_pipe_and_a_name_too_long_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="pipe.jpg: is not a regular file"):
        open_image(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="no such image file") as refusal:
        open_image(tmp_path / f"{'a' * 100_000}.jpg")
    assert len(str(refusal.value)) < 500
