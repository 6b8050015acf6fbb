"""Files that are not a VAD lexicon."""

import pytest

from tests.bad_input import LEXICON, check_training_refused

FILE = "data/NRC-VAD-Lexicon.txt"

# what -> (content, message behind the file's name)
CONTENTS = {
    "empty": ("", "holds no line.*saifmohammad"),
    "of a header alone": ("term\tvalence\tarousal\tdominance\n", "holds no line"),
    "separated by commas": ("sky,1,0,1\n", "holds no line"),
    "in 1..9": ("sky\t7\t2\t5\n", "line 1: value outside -1..1"),
    "with NaN": (LEXICON + "sea\tnan\t0\t0\n", "line 4: value outside"),
    "with words for numbers": (LEXICON + "sea\thigh\t0\t0\n", "line 4: .*not three numbers; correct or remove"),
    "in latin-1": ("é\t1\t0\t0\n".encode("latin-1"), "not UTF-8 text.*saifmohammad"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_content(box, content, message):
    box.write(FILE, content)
    check_training_refused(box, f"{FILE}: {message}")


def test_no_lexicon(box):
    box.remove(FILE)
    check_training_refused(box, "no VAD lexicon found.*--vad_lexicon.*saifmohammad.com")


def test_no_named_lexicon(box):
    check_training_refused(box, "--vad_lexicon gone: no such file; .*saifmohammad.com", "--vad_lexicon gone")


def test_lexicon_is_a_folder(box):
    check_training_refused(box, "--vad_lexicon data: .*saifmohammad.com", "--vad_lexicon data")
