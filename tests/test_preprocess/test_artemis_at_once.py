"""Texts that are tokenized together, and tables that are written in parts, are those done one by one and at once."""

import random

import pandas as pd
import pytest
from nltk.tokenize import NLTKWordTokenizer

from preprocess import artemis_files
from preprocess.artemis_files import TextColumns, write_table
from preprocess.artemis_text import tokenize, tokenize_all

# what NLTK's rules look at
PARTS = [*"''\"\" \t\n\xa0`()&«»“”‘’a", "''", "``", "foo", "'s", "'re", "n't", " 'tis", "d'ye", "wanna", "cannot", "é"]


def test_texts_are_tokenized_together_as_alone():
    choose = random.Random(3).choices
    texts = ["", *("".join(choose(PARTS, k=1 + n % 9)) for n in range(1000))]
    assert tokenize_all(texts) == [" ".join(tokenize(text)) for text in texts]


@pytest.mark.parametrize(
    "text", ['"the sky" is', "''the sky'' is", "\"'the sky'\"", "' the foxes'", '"`sea', "sky's'", '"']
)
def test_quotes_at_a_texts_ends_are_split_as_by_nltk(text):
    assert tokenize_all(["sea", text, "sea"])[1].split() == NLTKWordTokenizer().tokenize(text)


@pytest.mark.parametrize("rows", [0, 6, 7, 20])
def test_a_table_is_written_in_parts_as_at_once(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(artemis_files, "ROWS_WRITTEN_AT_ONCE", 7)
    texts = ["the sea", 'a "sky"', "é,", "", " ".join(["sea"] * 300)]
    table = pd.DataFrame({"emotion": "awe", "utterance_spelled": [texts[n % 5] for n in range(20)], "split": "train"})
    table["tokens_len"] = table["utterance_spelled"].str.split().str.len()
    add = TextColumns(table, min_count=1).add
    write_table(tmp_path / "parts.csv", table[:rows], add)
    assert (tmp_path / "parts.csv").read_bytes() == add(table[:rows]).to_csv(index=False, lineterminator="\n").encode()
