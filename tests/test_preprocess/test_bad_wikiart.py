"""preprocess/resize_wikiart.py: folders and flags that it refuses."""

import pytest

from preprocess.resize_wikiart import main
from tests.bad_input import RELEASE_CSV, RELEASE_HEADER, check_accepted, check_refused

GOOD = "--wikiart_dir data/images --out_dir out --jobs 1"

# command line -> message
ARGV = {
    "": "--wikiart_dir",
    "--wikiart_dir gone --out_dir out": "gone: no such image folder; give the one",
    "--wikiart_dir data/artEmisX_cl_train.json --out_dir out": "no such image folder",
    "--wikiart_dir artemis --out_dir out --jobs 1": "artemis: holds no image asked for; give",
    "--wikiart_dir data/images --out_dir data/images": "originals would be overwritten; name another",
    "--wikiart_dir data/images --jobs 1 --out_dir vit/config.json": "vit/config.json",
    f"{GOOD} --quality 50": "--quality 90 to 100",
    f"{GOOD} --max_size 0": "--max_size",
    f"{GOOD} --max_size large": "--max_size.*large",
    f"{GOOD} --jobs 0": "--jobs",
    f"{GOOD} --sharpen": "--sharpen",
    f"{GOOD} --manifest data": "data: is a folder",
    f"{GOOD} --release_csv gone.csv": "gone.csv: no such file; give ArtEmis' release csv",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)


def test_release_leads_out(box):
    box.write(RELEASE_CSV, RELEASE_HEADER + "../..,p,awe,t,1\n")
    check_refused(box, main, f"{GOOD} --release_csv {RELEASE_CSV}", "holds no image asked for")


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)
