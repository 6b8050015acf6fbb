"""ArtEmis' preprocessing against the files of its own tools for a small release; texts, spelling, and refused input."""

import json
import pickle
import random
from contextlib import redirect_stdout
from io import StringIO

import pandas as pd
import pytest
from nltk.tokenize import NLTKWordTokenizer

from preprocess import artemis_files
from preprocess.artemis_files import MIN_WORD_COUNT, TextColumns, grouped_references
from preprocess.artemis_text import SpellChecker, read_corrections, tokenize, tokenize_all
from tests.test_preprocess.helpers import ARTEMIS, HISTOGRAMS, MINI, NETS, RELEASE, prepare, read

VOCABULARY = "preprocess_data_nets/vocabulary.pkl"
REFERENCES = "preprocess_data_nets/artemis_gt_references_grouped.pkl"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The fixture's release, prepared with the one entry of ArtEmis' spelling list that acts in it."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "spelling.json").write_text('{"colours": "colors"}')
    with redirect_stdout(StringIO()) as printed:
        prepare(RELEASE, folder, spelling=folder / "spelling.json", jobs="2")
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


@pytest.mark.parametrize("name", [HISTOGRAMS, MINI, NETS, VOCABULARY])
def test_files_are_those_of_artemis_byte_by_byte(prepared, name):
    assert (prepared / name).read_bytes() == (ARTEMIS / name).read_bytes()


def test_grouped_references_are_those_of_artemis(prepared):
    both = []
    for folder in (prepared, ARTEMIS):
        with open(folder / REFERENCES, "rb") as file:
            assert pickle.load(file) == 1  # files of ours, so plain unpickling is safe here
            both.append(pickle.load(file))
    written, expected = both
    assert list(written) == list(expected) == ["rest", "test", "train", "val"]
    for split in expected:
        pd.testing.assert_frame_equal(written[split], expected[split], check_dtype=False, check_column_type=False)


def test_one_process_small_parts_and_the_list_in_python_give_the_same_bytes(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(artemis_files, "ROWS_WRITTEN_AT_ONCE", 100)
    (tmp_path / "spelling.py").write_text("token_spelling = {'colours': ['colors']}\n")
    prepare(RELEASE, tmp_path / "out", spelling=tmp_path / "spelling.py", jobs="1")
    for name in (HISTOGRAMS, MINI, NETS, VOCABULARY, REFERENCES):
        assert (prepared / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_counts_are_printed(prepared):
    counts = dict(line.rsplit(maxsplit=1) for line in (prepared / "printed.txt").read_text().splitlines()[1:])
    in_train = (read(prepared / NETS)["split"] == "train").sum()
    expected = {"rows": 1108, "artworks": 160, "kept": 910, "kept in train": in_train, "longest kept (tokens)": 19}
    assert {name: int(counts[name]) for name in expected} == expected
    assert int(counts["too short"]) + int(counts["too long"]) == 1108 - 910


def test_many_texts_with_corrections(tmp_path):
    """More rows than a process takes at a time: each keeps its text, and repeated rows count twice."""
    release = pd.concat([read(RELEASE)] * 2, ignore_index=True)
    numbers = [n % 1108 for n in range(len(release))]
    release["utterance"] = [f"The trees seem to be whispring paintng {n}" for n in numbers]
    release.loc[0, "utterance"] = "I lik it"
    (tmp_path / "spelling.json").write_text('{"I lik it": "I like this Picture very much", "be": "have been"}')
    (tmp_path / "known.txt").write_text("\n\n".join(["whispring 0.1 -0.2", *map(str, range(1108))]))
    prepare(release, tmp_path, spelling=tmp_path / "spelling.json", known_words=tmp_path / "known.txt", jobs="2")
    mini = read(tmp_path / MINI)
    expected = [f"the trees seem to have been whispring painting {n}" for n in numbers]
    assert mini["utterance_spelled"].tolist() == ["i like this picture very much", *expected[1:]]
    assert mini["emotion"].tolist() == release["emotion"].tolist()
    votes = [[2 * count for count in json.loads(row)] for row in read(ARTEMIS / HISTOGRAMS)["emotion_histogram"]]
    assert [json.loads(row) for row in read(tmp_path / HISTOGRAMS)["emotion_histogram"]] == votes


def test_a_split_column_of_the_release_wins(tmp_path):
    release = read(RELEASE)[:400]
    artworks = release["art_style"] + release["painting"]
    release["split"] = ["val" if name < sorted(set(artworks))[20] else "train" for name in artworks]
    prepare(release, tmp_path)
    assert read(tmp_path / MINI)["split"].tolist() == release["split"].tolist()


def test_a_very_long_text_does_not_lengthen_every_row(tmp_path):
    release = read(RELEASE)[:400]
    words = ["sky", "sea", "tree"] * 1000
    release.loc[[3, 5], "utterance"] = [" ".join(words), " ".join(words[:256])]
    mini = read(prepare(release, tmp_path) / MINI)
    encoded = mini["tokens_encoded"].map(json.loads)
    assert set(encoded.map(len)) == {258} and encoded[3] == encoded[5] and encoded[3][-1] == 2
    assert mini.loc[3, "utterance_spelled"].split() == words and mini.loc[3, "tokens_len"] == "3000"
    assert encoded[0][-1] == 0


def test_words_of_four_training_texts_are_unknown():
    """And so are words that only other splits have."""
    table = pd.DataFrame({"split": ["train"] * 5 + ["val"] * 6, "emotion": "awe", "art_style": "A", "painting": "p"})
    table["tokens_len"] = 3
    table["utterance_spelled"] = ["sky sea"] * 4 + ["sky fog"] + ["sky sea rain"] * 6
    columns = TextColumns(table, MIN_WORD_COUNT)
    assert columns.vocabulary == ["<pad>", "<sos>", "<eos>", "<unk>", "sky"]
    assert columns.add(table)["tokens_encoded"][0] == "[1, 4, 3, 2, 0]"
    references = grouped_references(table[:6], columns.vocabulary)["val"]
    assert references["references"].tolist() == [["sky <unk> <unk>"]]


# ---- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's Picasso's \"best\" work!", "it is picasso is best work"),  # "so's" expands inside a word
        ("She couldn't've said 'no'...", "she could not 've said no"),
        ("I cannot, I can't; I'd go", "i can not i can not i had go"),
        ("the dark sky & the dog's eyes", "the dark sky & the dog 's eyes"),
        ("blue/green—grey–red\\black_white", "blue green grey red black white"),
        ("(a) [b] {c} <d> 50% #1 x=y a^b c|d @e $5 ~6*7", "( a ) b c d 50 1 x y a b c d e 5 6 7"),
        ("Ende. Anfang? Oui!", "ende anfang oui"),
        ("", ""),
        (" \u00a0 ... ", ""),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens.split()


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


def test_spelling():
    corrected = {"whispring": "whispering", "beautifull": "beautiful"}
    for word in (*corrected, "colours", "the", "xqzvw", "1920s", "'s", "paintng2", "&"):
        assert SpellChecker().correct(word) == [corrected.get(word, word)]


def test_spelling_lists_are_read_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spelling.py").write_text(
        "import os\nos.mkdir('never')\n"
        "sentence_spelling = {'I lik it': 'I like it'}\n"
        "token_spelling: dict = {'alot': ['a', 'lot'], 'colours': 'colors'}\n"
        "number = 3\ncalled = dict(x='y')\n"
    )
    nested = {"whole": {"I lik it": "I like it"}, "alot": ["a", "lot"], "colours": "colors"}
    (tmp_path / "spelling.json").write_text(json.dumps(nested))
    for name in ("spelling.py", "spelling.json"):
        assert read_corrections(tmp_path / name) == {"I lik it": "I like it", "alot": "a lot", "colours": "colors"}
    assert not (tmp_path / "never").exists()
