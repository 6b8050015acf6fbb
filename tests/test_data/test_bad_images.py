"""Pictures that are missing, unreadable, too large, or outside their folder."""

import pytest

from tests.bad_input import TRAIN, check_training_refused, png_header
from tests.conftest import GOLDEN

PICTURE = "data/images/Baroque/p1.jpg"
RECORD = f"{TRAIN}: record '?12'?: .*"
GOOD_PNG = (GOLDEN / "dataset/images/Baroque/anger.png").read_bytes()

# what -> (content, message)
CONTENTS = {
    "truncated image": (GOOD_PNG[:200], f"{RECORD}p1.jpg: unreadable image.*--skip_bad_images"),
    "text as an image": (b"no picture", f"{RECORD}p1.jpg: unreadable image"),
    "empty image": (b"", f"{RECORD}p1.jpg: unreadable image"),
    "decompression bomb": (
        png_header(50_000, 50_000),
        f"{RECORD}p1.jpg: image has too many pixels.*--skip_bad",
    ),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_content(box, content, message):
    box.write(PICTURE, content)
    check_training_refused(box, message)


# what -> (target of the link, message)
LINKS = {
    "to itself": ("p1.jpg", f"{RECORD}p1.jpg"),
    "to nowhere": ("gone.jpg", f"{RECORD}no image .*p1.jpg under .*p1.jpg is a link that leads nowhere; fetch"),
    "to another kind of file": ("../../../vit/config.json", f"{RECORD}p1.jpg: unreadable image"),
}


@pytest.mark.parametrize(("target", "message"), LINKS.values(), ids=LINKS)
def test_link(box, target, message):
    box.link(PICTURE, target)
    check_training_refused(box, message)


# what -> (image_name of record 12, message)
NAMES = {
    "two folders up": ("../../etc/p.jpg", f"{RECORD}leads out of .*data/images"),
    "at the root": ("/etc/p.jpg", f"{RECORD}leads out of .*data/images"),
    "with a NUL": ("Baroque/p1.jpg\0.png", f"{RECORD}leads out of"),
    "of two lines": ("Baroque/a\nb.jpg", f"{RECORD}no image "),
    "of half a character": ("Baroque/\ud800\udc80.jpg", f"{RECORD}no image|{RECORD}half a char"),
}


@pytest.mark.parametrize(("name", "message"), NAMES.values(), ids=NAMES)
def test_name(box, name, message):
    box.json(TRAIN, lambda records: records["12"].update(image_name=name))
    check_training_refused(box, message)


def test_no_image(box):
    box.remove(PICTURE)
    check_training_refused(box, f"{RECORD}no image .*p1.jpg under .*resize_wikiart.*--skip_bad")


def test_all_images_bad(box):
    box.remove("data/images/Baroque")
    check_training_refused(box, "none of its . images can be read.*right folder", "--skip_bad_images")


def test_no_image_folder(box):
    box.remove("data/images")
    check_training_refused(box, "no image folder found: looked for .*--image_root")


def test_no_named_image_folder(box):
    check_training_refused(box, "--image_root gone: no such folder; .*resize_wikiart", "--image_root gone")
