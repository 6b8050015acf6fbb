"""VAD lexicons that are none."""

import pytest

from tests.bad_input import LEXICON, MANY_BYTES, check_training_refused

FILE = "data/NRC-VAD-Lexicon.txt"

# what -> (content, message behind the file's name)
CONTENTS = {
    "empty": ("", "holds no line.*saifmohammad"),
    "of a header alone": ("term\tvalence\tarousal\tdominance\n", "holds no line"),
    "separated by commas": ("sky,1,0,1\n", "holds no line"),
    "in 1..9": ("sky\t7\t2\t5\n", "line 1: value outside -1..1"),
    "with NaN": (LEXICON + "sea\tnan\t0\t0\n", "line 4: value outside"),
    "with infinity": (LEXICON + "sea\tinf\t0\t0\n", "line 4: value outside"),
    "with words for numbers": (LEXICON + "sea\thigh\t0\t0\n", "line 4: .*not three numbers; correct or remove"),
    "with a formula": (LEXICON + 'sea\t=cmd|" /C calc"!A0\t0\t0\n', "line 4: .*not three numbers"),
    "with NUL": (LEXICON + "se\0a\t1\t0\t0\n", "line 4 .*overlong or binary.*saifmohammad"),
    "of one long line": ("a" * MANY_BYTES, "line 1 .*overlong or binary"),
    "of one long value": (LEXICON + "sea\t" + "1" * 9000 + "\t0\t0\n", "line 4"),
    "in latin-1": ("é\t1\t0\t0\n".encode("latin-1"), "not UTF-8 text.*saifmohammad"),
    "in UTF-16": (LEXICON.encode("utf-16"), "not UTF-8 text"),
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
