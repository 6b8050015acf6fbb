"""preprocess/make_demo_data.py: flags that it refuses."""

import pytest

from preprocess.make_demo_data import main
from tests.bad_input import TRAIN, check_refused

# command line -> message
ARGV = {
    "--out_dir out --pictures 5": "--pictures 5: at least 30",
    "--out_dir out --seed -1": "--seed -1: must not be negative",
    "--out_dir data --pictures 30": "data: not empty .*name another --out_dir",
    f"--out_dir {TRAIN}": f"{TRAIN}: is a file.*name another --out_dir",
    f"--out_dir {TRAIN}/out --pictures 30": f"{TRAIN}",
    "--pictures many": "--pictures.*many",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)
