"""Images that are missing or unreadable, and their folder."""

import pytest

import artEmisX_train
from tests.bad_input import TRAIN, check_training_refused, train_argv
from tests.conftest import GOLDEN
from utils.errors import InputError

IMAGE = "data/images/Baroque/p1.jpg"
GOOD_PNG = (GOLDEN / "dataset/images/Baroque/anger.png").read_bytes()

# what -> (content, message)
CONTENTS = {
    "truncated image": (GOOD_PNG[:200], "p1.jpg: unreadable image.*--skip_bad_images"),
    "text as an image": (b"not an image", "p1.jpg: unreadable image"),
    "empty image": (b"", "p1.jpg: unreadable image"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_content(box, content, message, capsys):
    """One line where the image is read; with --skip_bad_images its record is left out beforehand."""
    box.write(IMAGE, content)
    with pytest.raises(InputError, match=message):
        artEmisX_train.main(train_argv(""))
    assert (
        artEmisX_train.main([*train_argv("--ckpt_path ckpts2 --caption_save_path results2"), "--skip_bad_images"]) == 0
    )
    assert "left out 1 records whose image is missing or unreadable, e.g. Baroque/p1.jpg" in capsys.readouterr().out


def test_no_image(box):
    box.remove(IMAGE)
    check_training_refused(
        box, f"{TRAIN}: record 12: no image .*p1.jpg under .*1 missing in all.*--image_root.*--skip_bad"
    )


def test_all_images_bad(box):
    box.remove("data/images/Baroque")
    check_training_refused(box, "none of its . images can be read.*right folder", "--skip_bad_images")


def test_no_image_folder(box):
    box.remove("data/images")
    check_training_refused(box, "no image folder found: looked for .*--image_root")


def test_no_named_image_folder(box):
    check_training_refused(box, "--image_root gone: no such folder; .*resize_wikiart", "--image_root gone")
