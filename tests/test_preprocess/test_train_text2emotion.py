"""preprocess/train_text2emotion.py: annotations, word vectors and flags that are refused (training: tests/test_evaluation)."""

import pytest

from preprocess.train_text2emotion import main
from tests.bad_input import (
    ARTEMIS,
    ARTEMIS_CSV,
    RELEASE_HEADER,
    TOKENS,
    check_accepted,
    check_refused,
    content,
    removed,
    replaced,
)

FLAGS = "--sizes 4 4 4 4 --epochs 1 --batch_size 2 --device cpu"
GOOD = f"--data_dir {ARTEMIS} {FLAGS} --out out/t2e.safetensors"
REMEDY = ".*preprocess/prepare_artemis"

# what -> (change, message)
FOLDERS = {
    "hostile vocabulary": (
        lambda box: box.bomb(f"{ARTEMIS}/vocabulary.pkl"),
        "vocabulary.pkl: truncated, modified or unsafe .its pickle names (os|posix).system",
    ),
    "no annotations": (
        removed(ARTEMIS_CSV),
        f"{ARTEMIS_CSV}: no such file; make it with preprocess/prepare_artemis",
    ),
    "annotations without columns": (content(ARTEMIS_CSV, RELEASE_HEADER), f"{ARTEMIS_CSV}: {REMEDY}"),
    "annotations in latin-1": (
        content(ARTEMIS_CSV, b"split,tokens_encoded,emotion_label\n\xe9,1,1\n"),
        f"{ARTEMIS_CSV}: line 2: not UTF-8 text",
    ),
    "no rows of test": (
        replaced(ARTEMIS_CSV, ",test,", ",val,", -1),
        f"{ARTEMIS_CSV}: has no rows of split 'test'",
    ),
    "tokens that are no list": (
        replaced(ARTEMIS_CSV, TOKENS, "1 4 2"),
        f"{ARTEMIS_CSV}: line 2: tokens_encoded is not",
    ),
    "tokens beyond the vocabulary": (
        replaced(ARTEMIS_CSV, "[1, 4,", "[1, 99999,"),
        f"{ARTEMIS_CSV}: line 2: tokens_encoded is not",
    ),
    "tokens of fractions": (
        replaced(ARTEMIS_CSV, "[1, 4,", "[1, 4.5,"),
        f"{ARTEMIS_CSV}: line 2: tokens_encoded is not",
    ),
    "label of nine": (replaced(ARTEMIS_CSV, '",1\n', '",9\n'), f"{ARTEMIS_CSV}: line 2: emotion_label 9"),
}


@pytest.mark.parametrize(("change", "message"), FOLDERS.values(), ids=FOLDERS)
def test_refused_folders(box, change, message):
    change(box)
    check_refused(box, main, GOOD, message)


# what -> (content of the word vectors, message behind the file's name)
WORD_VECTORS = {
    "of words": ("the high low\n", "not a GloVe text file"),
    "in latin-1": (b"caf\xe9 1 2\n", "not a GloVe text file"),
    "of NaN": ("the nan 1\n", "not a GloVe text file"),
    "of other words": ("zzz 1 2\n", "contains no word of the vocabulary"),
}


@pytest.mark.parametrize(("content", "message"), WORD_VECTORS.values(), ids=WORD_VECTORS)
def test_refused_word_vectors(box, content, message):
    box.write("g.txt", content)
    check_refused(box, main, f"{GOOD} --glove g.txt", f"g.txt: {message}")


# command line -> message
ARGV = {
    GOOD.replace(ARTEMIS, "gone"): "gone/vocabulary.pkl: no such file",
    GOOD.replace("t2e.safetensors", "t2e.pt"): "--out .*ends in .safetensors",
    GOOD.replace("out/", "vit/config.json/"): "vit/config.json",
    f"{GOOD} --glove gone.txt": "gone.txt: no such file; download GloVe",
    f"{GOOD} --batch_size 1": "--batch_size: 1 is not between 2",
    f"{GOOD} --learning_rate nan": "--learning_rate: nan is not between",
    f"{GOOD} --device abacus": "--device abacus: torch has no such device",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_refused_flags(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)
