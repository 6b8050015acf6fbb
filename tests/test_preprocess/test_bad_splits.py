"""preprocess/build_splits.py: folders of ArtEmis' files that it refuses."""

import pytest

from preprocess.build_splits import main
from tests.bad_input import (
    ARTEMIS,
    ARTEMIS_CSV,
    HISTOGRAM_CSV,
    TEXTS,
    VOTES,
    appended,
    check_accepted,
    check_refused,
    check_refused_in_shell,
    removed,
    replaced,
    torn,
)

GOOD = "--artemis_dir artemis --out_dir out"
FROM_ARTEMIS = "; make the folder with preprocess/prepare_artemis.py"
ALL = -1  # of `replaced`: everywhere

# command line -> message
ARGV = {
    "--out_dir out": "give --artemis_dir, or both",
    f"{GOOD} --image_root gone": "gone: no such image folder",
    f"{GOOD} --dataset v3": "--dataset.*v3",
    f"{GOOD} --dataset v2": f"{ARTEMIS_CSV}: has no column version",
    f"{GOOD} --train_set all": "--train_set.*all",
    "--artemis_dir artemis --out_dir vit/config.json": "vit/config.json",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)


def annotations_are_a_folder(box):
    box.remove(ARTEMIS_CSV)
    (box / ARTEMIS_CSV).mkdir()


def one_artwork_in_two_spellings_and_splits(box):
    """The same é as one character and as two."""
    for name, split in (("caf\u00e9", "train"), ("cafe\u0301", "val")):
        box.append(ARTEMIS_CSV, f"Baroque,{name},awe,{TEXTS[0]},6,{split},[],1")
    box.append(HISTOGRAM_CSV, 'Baroque,caf\u00e9,"[1,0,0,0,0,0,0,0,0]"')


# what -> (change, message)
FOLDERS = {
    "no histogram file": (removed(HISTOGRAM_CSV), f"{HISTOGRAM_CSV}: no such file{FROM_ARTEMIS}"),
    "no annotations": (removed(ARTEMIS_CSV), f"{ARTEMIS_CSV}: no such file{FROM_ARTEMIS}"),
    "annotations are a folder": (annotations_are_a_folder, f"{ARTEMIS_CSV}: is a folder"),
    "v2 called v1": (
        replaced(ARTEMIS_CSV, "emotion_label", "version"),
        f"{ARTEMIS_CSV}: has a column version.*--dataset v2",
    ),
    "unknown split": (
        replaced(ARTEMIS_CSV, ",val,", ",dev,"),
        f"{ARTEMIS_CSV}: unknown split 'dev' .known: rest, test",
    ),
    "long unknown split": (replaced(ARTEMIS_CSV, ",val,", f",{'v' * 9999},"), f"{ARTEMIS_CSV}: unknown split"),
    "artwork in two splits": (
        replaced(ARTEMIS_CSV, ",val,", ",train,"),
        f"{ARTEMIS_CSV}: Baroque/val0 is in several splits{FROM_ARTEMIS}",
    ),
    "artwork of two lines in two splits": (
        appended(ARTEMIS_CSV, *(f'Baroque,"a\nb",awe,text,6,{split},[],1' for split in ("train", "val"))),
        f"{ARTEMIS_CSV}: Baroque/.* is in several splits",
    ),
    "artwork in two splits and spellings": (
        one_artwork_in_two_spellings_and_splits,
        "Baroque/.* is in .* as well|several splits|Unicode spellings",
    ),
    "artwork without histogram": (
        appended(ARTEMIS_CSV, f"Baroque,new,awe,{TEXTS[0]},6,train,[],1"),
        f"{ARTEMIS_CSV}: Baroque/new has no histogram; take both",
    ),
    "only one emotion": (
        replaced(ARTEMIS_CSV, ",fear,", ",awe,", ALL),
        f"{ARTEMIS_CSV}: no training images with annotations of two emotions",
    ),
    "no test artworks": (
        replaced(ARTEMIS_CSV, ",test,", ",val,", ALL),
        f"{ARTEMIS_CSV}: no artworks for artEmisX_test",
    ),
    "hostile vocabulary": (
        lambda box: box.bomb(f"{ARTEMIS}/vocabulary.pkl"),
        "vocabulary.pkl: truncated, modified or unsafe .its pickle names (os|posix).system.; download it again",
    ),
    "damaged vocabulary": (torn(f"{ARTEMIS}/vocabulary.pkl"), "vocabulary.pkl: truncated, modified or unsafe"),
    "histogram twice": (
        appended(HISTOGRAM_CSV, 'Baroque,val0,"[1,0,0,0,0,0,0,0,0]"'),
        f"{HISTOGRAM_CSV}: row 7 .Baroque/val0.: the artwork occurs twice",
    ),
}


@pytest.mark.parametrize(("change", "message"), FOLDERS.values(), ids=FOLDERS)
def test_folder(box, change, message):
    change(box)
    check_refused(box, main, GOOD, message)


HISTOGRAMS = {
    "of eight": "[1, 1, 0, 0, 0, 0, 0, 0]",
    "negative": "[-1, 3, 0, 0, 0, 0, 0, 0, 0]",
    "of zeros": str([0] * 9),
    "infinite": "[1e999, 1, 0, 0, 0, 0, 0, 0, 0]",
    "overflowing": str([1e308] * 9),
    "of huge integers": f"[{'9' * 400}, 1, 0, 0, 0, 0, 0, 0, 0]",
    "of code": "__import__('os').system('echo harm > canary')",
    "of brackets": "[" * 5000,
    "of texts": str(["a"] * 9),
    "of NaN": "[nan, 1, 0, 0, 0, 0, 0, 0, 0]",
    "of nothing": "",
    "a number": "3",
    "of NUL": "\0",
}


@pytest.mark.parametrize("votes", HISTOGRAMS.values(), ids=HISTOGRAMS)
def test_histogram(box, votes):
    box.replace(HISTOGRAM_CSV, VOTES, votes)
    check_refused(box, main, GOOD, f"{HISTOGRAM_CSV}: row 1 .Baroque/train0.: .*9 vote counts{FROM_ARTEMIS}")


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)


def test_in_the_shell(box):
    box.remove(ARTEMIS_CSV)
    message = f"error: {ARTEMIS_CSV}: no such file{FROM_ARTEMIS}"
    check_refused_in_shell(box, f"preprocess/build_splits.py {GOOD}", message)
