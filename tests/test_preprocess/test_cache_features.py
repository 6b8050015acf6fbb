"""preprocess/cache_features.py: splits, images and flags that are refused (the cache itself: tests/test_data)."""

import pytest

from preprocess.cache_features import main
from tests.bad_input import TRAIN, check_accepted, check_refused, content, png_header, removed

FLAGS = "--image_root data/images --out_dir out --clip_model vit --from_scratch --num_workers 0"
GOOD = f"{TRAIN} {FLAGS}"
IMAGE = "data/images/Baroque/p1.jpg"


# what -> (change, message)
FILES = {
    "missing image": (removed(IMAGE), "no image Baroque/p1.jpg"),
    "decompression bomb": (content(IMAGE, png_header(50_000, 50_000)), "p1.jpg: image has too many pixels"),
}


@pytest.mark.parametrize(("change", "message"), FILES.values(), ids=FILES)
def test_refused_files(box, change, message):
    change(box)
    check_refused(box, main, GOOD, message)


# command line -> message
ARGV = {
    f"gone.json {FLAGS}": "gone.json: no such file",
    f"{GOOD} --image_root gone": "--image_root gone: no such folder",
    f"{GOOD} --clip_model gone": "--clip_model gone: no such folder",
    f"{GOOD} --out_dir vit/config.json": "vit/config.json",
    f"{GOOD} --batch_size 0": "--batch_size",
    f"{GOOD} --check -1": "--check",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_refused_flags(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)
