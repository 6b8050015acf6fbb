"""preprocess/prepare_artemis.py: releases and word lists that it refuses."""

import pytest

from preprocess.prepare_artemis import main
from tests.bad_input import ARTEMIS_CSV, BRACKETS, MANY_BYTES, RELEASE_CSV, TEXTS, check_accepted, check_refused
from tests.bad_input import RELEASE_HEADER as HEADER

GOOD = f"--release_csv {RELEASE_CSV} --out_dir out --jobs 1"
SPLIT_HEADER = HEADER.replace("\n", ",split\n")
NOT_A_TABLE = "has no column|not a readable csv"

# what -> (content of the release, message behind its name)
RELEASES = {
    "of another header": ("a,b\n1,2\n", "has no column .*"),
    "empty": ("", "has no column "),
    "without rows": (HEADER, "has no rows"),
    "in latin-1": (HEADER.encode() + "Baroque,caf\xe9,awe,text,1\n".encode("latin-1"), "line 2: not UTF-8 text"),
    "in UTF-16": (HEADER.encode("utf-16"), "has no rows"),
    "of ragged rows": (HEADER + "Baroque,p,awe,text,1,more,and more\n", "not a readable csv"),
    "of short rows": (HEADER + "Baroque,p,awe\n", "row 1: |not a readable csv"),
    "with an open quote": (HEADER + 'Baroque,p,awe,"text,1\n', "not a readable csv"),
    "with NUL in the header": ("art_style,paint\0ing,emotion,utterance,repetition\n", NOT_A_TABLE),
    "of zeros": (bytes(5000), NOT_A_TABLE),
    "of one long line": (b"a" * MANY_BYTES, NOT_A_TABLE),
    "of one long cell": (
        HEADER.encode() + b"Baroque,p,awe," + b"a" * MANY_BYTES + b",x\n",
        "row 1: repetition 'x' is not an int",
    ),
    "of an unknown emotion": (HEADER + "Baroque,p,joy,text,1\n", "row 1: unknown emotion 'joy' .known: amusement"),
    "of a formula": (HEADER + "Baroque,p,\"=cmd|' /C calc'!A0\",text,1\n", "row 1: unknown emotion"),
    "of half a repetition": (HEADER + "Baroque,p,awe,text,1.5\n", "row 1: repetition '1.5' is not an integer"),
    "of a huge repetition": (HEADER + "Baroque,p,awe,text,1e30\n", "row 1: repetition '1e30' is not an integer"),
    "of more digits than a number": (HEADER + f"Baroque,p,awe,text,{'9' * 25}\n", "row 1: repetition"),
    "of an infinite repetition": (HEADER + "Baroque,p,awe,text,inf\n", "row 1: repetition 'inf'"),
    "of an unknown split": (SPLIT_HEADER + "Baroque,a,awe,text,1,dev\n", "unknown split 'dev'"),
    "without training rows": (SPLIT_HEADER + "Baroque,a,awe,text,1,val\n", "no row has the split train"),
    "of an artwork in two splits": (
        SPLIT_HEADER + "Baroque,a,awe,text,1,val\nBaroque,a,awe,text,1,train\n",
        "Baroque/a is in several splits",
    ),
}


@pytest.mark.parametrize(("content", "message"), RELEASES.values(), ids=RELEASES)
def test_release(box, content, message):
    box.write(RELEASE_CSV, content)
    check_refused(box, main, GOOD, f"{RELEASE_CSV}: {message}")


def test_too_few_artworks(box):
    box.write(RELEASE_CSV, HEADER + "Baroque,a,awe,text,1\nBaroque,b,awe,text,1\n")
    check_refused(box, main, GOOD, "2 artworks are too few to be split")


def test_short_texts(box):
    for text in TEXTS:
        box.replace(RELEASE_CSV, text, "dull", -1)
    check_refused(box, main, GOOD, f"{RELEASE_CSV}: no training text has between 5 tokens")


# what -> (flag, name of its file, content, message behind the file's name)
WORD_LISTS = {
    "spelling list of brackets": ("--spelling", "s.json", BRACKETS, "JSON nested too deeply"),
    "spelling list of numbers": ("--spelling", "s.json", '{"teh": 3}', ".*a text or a list of texts"),
    "spelling list that acts": (
        "--spelling",
        "s.py",
        "a = {'b': __import__('os').system('echo harm > canary')}",
        "",
    ),
    "spelling list of Python brackets": ("--spelling", "s.py", "a = " + BRACKETS, ""),
    "spelling list with NUL": ("--spelling", "s.py", "a = {'a': 'b\0'}", ""),
    "known words in latin-1": ("--known_words", "w.txt", b"caf\xe9 1\n", "not UTF-8 text"),
    "known words empty": ("--known_words", "w.txt", "\n\n", "holds no words"),
}


@pytest.mark.parametrize(("flag", "name", "content", "message"), WORD_LISTS.values(), ids=WORD_LISTS)
def test_word_list(box, flag, name, content, message):
    box.write(name, content)
    check_refused(box, main, f"{GOOD} {flag} {name}", f"{name}: {message}")


# command line -> message
ARGV = {
    "": "--release_csv",
    "--release_csv gone.csv --out_dir out": "gone.csv: no such file; give ArtEmis' release",
    f"--release_csv {ARTEMIS_CSV} --out_dir out": f"{ARTEMIS_CSV}: ",
    f"--release_csv {RELEASE_CSV} --out_dir out --jobs 0": "--jobs: 0 is not between 1",
    f"--release_csv {RELEASE_CSV} --jobs 1 --out_dir vit/config.json": "vit/config.json",
    f"{GOOD} --contrastive_csv {RELEASE_CSV}": f"{RELEASE_CSV}: has no column anchor_painting",
    f"{GOOD} --contrastive_csv gone.csv": "gone.csv: no such file",
    f"{GOOD} --spelling gone.json": "gone.json: no such file",
    f"{GOOD} --known_words gone.txt": "gone.txt: no such file; give GloVe's",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)
