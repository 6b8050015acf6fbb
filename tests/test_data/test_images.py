"""Images as they are in the wild: how files are found and opened, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from utils.data.images import EXTENSIONS, fallback_name, find_image, image_size, list_images, open_image
from utils.errors import InputError


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_ordinary_images_are_converted_as_pillow_does(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "image.png")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "image.png")), expected)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_formats(tmp_path, extension):
    Image.new("RGB", (20, 10), (250, 0, 100)).save(tmp_path / f"image{extension}")
    image = open_image(tmp_path / f"image{extension}")
    np.testing.assert_allclose(np.asarray(image), np.full((10, 20, 3), (250, 0, 100)), atol=5)


def test_cmyk_sixteen_bits_and_floats(tmp_path):
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red = open_image(tmp_path / "cmyk.jpg")
    assert red.mode == "RGB" and red.getpixel((0, 0))[0] > 200 > 60 > red.getpixel((0, 0))[1]
    ramp = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "deep.png"))[..., 2], ramp >> 8)
    Image.fromarray(np.full((2, 2), 256, np.uint16)).save(tmp_path / "dark.png")  # more than eight bits hold
    assert open_image(tmp_path / "dark.png").getpixel((0, 0)) == (1, 1, 1)
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "unit.tif")
    np.testing.assert_allclose(np.asarray(open_image(tmp_path / "unit.tif"))[..., 1], ramp / 257, atol=1)


# EXIF orientation -> how the stored pixels are turned
ORIENTATIONS = {
    1: np.copy,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientations(tmp_path, pixels, orientation, extension):
    """Pillow turns TIFF files itself, asked or not."""
    stored, path, exif = pixels[:3, :5, :3], tmp_path / f"image.{extension}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    for apply_orientation in (True, False):
        image = open_image(path, apply_orientation=apply_orientation)
        turned = ORIENTATIONS[orientation if apply_orientation or extension == "tif" else 1]
        np.testing.assert_array_equal(np.asarray(image), turned(stored))
        assert image_size(path, apply_orientation) == image.size


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("draft_size", [None, 64])
def test_a_jpeg_without_its_end_marker(tmp_path, pixels, options, draft_size):
    """One that lacks nothing else is read, whole and at a fraction of its size; one that lacks a byte more is not."""
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels[..., :3]).resize((300, 200)).save(path, **options)
    content, expected = path.read_bytes(), np.asarray(open_image(path, draft_size))
    assert expected.shape[:2] == ((200, 300) if draft_size is None else (100, 150))
    for missing in (1, 2):
        path.write_bytes(content[:-missing])
        np.testing.assert_array_equal(np.asarray(open_image(path, draft_size)), expected)
    half = len(content) // 2
    for truncated in (content[:-3], content[:-40] + b"\xff", content[:half] + bytes(half)):
        path.write_bytes(truncated)
        with pytest.raises(InputError, match="a.jpg: unreadable image .*truncated"):
            open_image(path, draft_size)


def test_absent_and_too_large_images_are_refused(tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_999)
    for name, message in (("large", "image has too many pixels"), ("absent", "no such image")):
        with pytest.raises(InputError, match=f"{name}.png: {message}"):
            open_image(tmp_path / f"{name}.png")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("reader", [open_image, image_size])
@pytest.mark.parametrize(
    ("content", "kind"), [(EPS, "not in a format"), (b"", "empty"), (b"<!DOCTYPE html>", "a web page")]
)
def test_other_formats_are_refused(tmp_path, content, kind, reader):
    """For the first of these Pillow would start Ghostscript."""
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(InputError, match=f"image.jpg: unreadable image .*{kind}.*convert it"):
        reader(tmp_path / "image.jpg")


def test_names_are_found_as_published(tmp_path):
    """As they are, spelled out, or, of SAEA's names, with an extension."""
    assert fallback_name("é e\u0301 n\u0308 画ﬀ.jpg") == "#U00e9 #U00e9 n#U0308 \\u753b\\ufb00.jpg"
    for name in ("é.jpg", "b#U00e9.jpg", "saea.PNG", "st.-george.jpeg"):
        (tmp_path / name).touch()
    found = {name: find_image(tmp_path, name) for name in ("é.jpg", "bé.jpg", "st.-george", "saea", "c.jpg")}
    expected = {"é.jpg": "é.jpg", "bé.jpg": "b#U00e9.jpg", "st.-george": "st.-george.jpeg", "saea": None, "c.jpg": None}
    assert found == {name: file and tmp_path / file for name, file in expected.items()}


def test_images_of_a_folder(tmp_path):
    """In the order of their paths, with those of folders below and dangling links; no system files, no endless links."""
    for name in ("b/z.JPG", "b/a.png", "c.tif", "._c.tif", "notes.txt", "@eaDir/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/again").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    images = [tmp_path / name for name in ("b/a.png", "b/z.JPG", "c.tif", "gone.jpg")]
    assert list_images([tmp_path / "c.tif", tmp_path]) == [images[2], *images[:2], images[3]]
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="no image in this fol"):
        list_images([tmp_path / "d"])
    with pytest.raises(InputError, match="no such image or folder"):
        list_images([tmp_path / "@eaDir/x"])
