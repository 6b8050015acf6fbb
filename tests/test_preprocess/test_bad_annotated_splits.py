"""preprocess/build_annotations.py: splits that it refuses."""

import pytest

from preprocess.build_annotations import main
from tests.bad_input import BRACKETS, VAL, check_accepted, check_refused, content, unchanged

# command line -> (change, message)
CASES = {
    "": (unchanged, "splits"),
    "gone.json --out_dir out": (unchanged, "gone.json: no such file"),
    f"{VAL} other/artEmisX_val.json --out_dir out": (unchanged, "two splits of the same file name.*--out_dir"),
    f"{VAL} --out_dir vit/config.json": (unchanged, "vit/config.json"),
    f"{VAL} bad.json --out_dir out": (content("bad.json", "{}"), "bad.json: holds no records"),
    "bad.json --out_dir out": (content("bad.json", BRACKETS), "bad.json: JSON nested too deeply"),
}


@pytest.mark.parametrize(("argv", "case"), CASES.items(), ids=CASES)
def test_argv(box, argv, case):
    change, message = case
    change(box)
    check_refused(box, main, argv, message)


def test_half_a_character(box):
    box.json(VAL, lambda records: records["21"].update(explanations=["\udc80", "a"]))
    check_refused(box, main, f"{VAL} --out_dir out", f"{VAL}: record '21': .*half a character")


def test_good_files_are_accepted(box):
    check_accepted(box, main, f"{VAL} --out_dir out")
