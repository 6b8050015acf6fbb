"""ArtEmis' preprocessing against the files of its own tools for a small release, v2.0's rules, and refused input."""

import json
import pickle
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from preprocess import prepare_artemis
from preprocess.artemis_files import add_text_columns, grouped_references, split_artworks, split_v2, write_vocabulary
from preprocess.artemis_text import SpellChecker, read_corrections, read_known_words, tokenize
from preprocess.prepare_artemis import main
from tests.bad_input import ARTEMIS_CSV, RELEASE_CSV, RELEASE_HEADER, TEXTS, check_accepted, check_refused
from utils.data.untrusted_files import load_vocabulary
from utils.errors import InputError

FIXTURE = Path(__file__).parents[1] / "data" / "artemis"
RELEASE = FIXTURE / "artemis_dataset_release_v0.csv"
TABLES = [
    "preprocess_data_mini/image-emotion-histogram.csv",
    "preprocess_data_mini/artemis_preprocessed.csv",
    "preprocess_data_nets/artemis_preprocessed.csv",
]


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    """The fixture's release, prepared with the one entry of ArtEmis' spelling list that acts in it."""
    folder = tmp_path_factory.mktemp("corrected")
    (folder / "spelling.json").write_text('{"colours": "colors"}')
    arguments = ["--release_csv", RELEASE, "--out_dir", folder, "--spelling", folder / "spelling.json", "--jobs", "2"]
    prepare_artemis.main(list(map(str, arguments)))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    prepare_artemis.main(["--release_csv", str(RELEASE), "--out_dir", str(folder), "--jobs", "1"])
    return folder


@pytest.mark.parametrize("name", [*TABLES, "preprocess_data_nets/vocabulary.pkl"])
def test_files_are_those_of_artemis_byte_by_byte(corrected, name):
    assert (corrected / name).read_bytes() == (FIXTURE / name).read_bytes()


def read_references(folder: Path) -> dict[str, pd.DataFrame]:
    with open(folder / "preprocess_data_nets/artemis_gt_references_grouped.pkl", "rb") as file:
        assert pickle.load(file) == 1  # files of ours, so plain unpickling is safe here
        return pickle.load(file)


def test_grouped_references_are_those_of_artemis(corrected):
    written, expected = read_references(corrected), read_references(FIXTURE)
    assert list(written) == list(expected) == ["rest", "test", "train", "val"]
    for split in expected:
        pd.testing.assert_frame_equal(written[split], expected[split], check_dtype=False, check_column_type=False)


def test_without_the_spelling_list_only_that_word_differs(plain):
    for name in TABLES:
        written, expected = read(plain / name), read(FIXTURE / name)
        for column in {"tokens", "utterance_spelled"} & set(expected):
            assert written[column].str.contains("colours").any()
            written[column] = written[column].str.replace("colours", "colors")
        pd.testing.assert_frame_equal(written, expected)


def test_two_runs_give_the_same_bytes(plain, tmp_path):
    prepare_artemis.main(["--release_csv", str(RELEASE), "--out_dir", str(tmp_path), "--jobs", "2"])
    files = sorted(path.relative_to(plain) for path in plain.rglob("*") if path.is_file())
    assert len(files) == 5 and files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for path in files:
        assert (plain / path).read_bytes() == (tmp_path / path).read_bytes()


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


def test_spelling():
    checker = SpellChecker()
    words = ["whispring", "beautifull", "colours", "the", "xqzvw", "1920s", "'s", "paintng2", "&"]
    assert [checker.correct(word) for word in words] == [
        [word] for word in ["whispering", "beautiful", "colours", "the", "xqzvw", "1920s", "'s", "paintng2", "&"]
    ]
    checker = SpellChecker(known_words={"whispring"}, corrections={"colours": "colors", "alot": "a lot", "teh": "teh"})
    assert checker.correct("whispring") == ["whispring"]
    assert checker.correct("paintng") == ["painting"]
    assert checker.correct("alot") == ["a", "lot"]
    assert checker.correct("teh") == ["teh"]  # what the list says is final


def test_spelling_lists_are_read_and_never_run(tmp_path):
    script = tmp_path / "spelling.py"
    script.write_text(
        "import os\nos.mkdir('never')\n"
        "sentence_spelling = {'I lik it': 'I like it'}\n"
        "token_spelling: dict = {'alot': ['a', 'lot'], 'colours': 'colors'}\n"
        "number = 3\ncalled = dict(x='y')\n"
    )
    expected = {"I lik it": "I like it", "alot": "a lot", "colours": "colors"}
    assert read_corrections(script) == expected
    as_json = tmp_path / "spelling.json"
    as_json.write_text(json.dumps({"whole": {"I lik it": "I like it"}, "alot": ["a", "lot"], "colours": "colors"}))
    assert read_corrections(as_json) == expected
    assert not Path("never").exists()


def test_known_words(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 0.1 -0.2\n\nwhispring 0.3 0.4\nnaïve\n", encoding="utf-8")
    assert read_known_words(path) == {"the", "whispring", "naïve"}


def test_whole_utterances_are_corrected_and_known_words_left_alone(tmp_path):
    release = read(RELEASE)
    release["utterance"] = "the trees seem to be whispring secrets"
    release.loc[0, "utterance"] = "I lik it"
    release.to_csv(tmp_path / "release.csv", index=False)
    (tmp_path / "spelling.json").write_text('{"I lik it": "I like this picture very much"}')
    (tmp_path / "known.txt").write_text("whispring\n")
    options = {"release_csv": "release.csv", "spelling": "spelling.json", "known_words": "known.txt", "out_dir": "out"}
    prepare_artemis.main([word for name, value in options.items() for word in (f"--{name}", str(tmp_path / value))])
    made = read(tmp_path / "out/preprocess_data_nets/artemis_preprocessed.csv")
    assert Counter(made["utterance_spelled"]) == {
        "the trees seem to be whispring secrets": len(release) - 1,
        "i like this picture very much": 1,
    }


def test_rare_words_are_unknown(corrected):
    words = list(load_vocabulary(corrected / "preprocess_data_nets/vocabulary.pkl"))
    table = pd.DataFrame({"split": ["train"] * 5 + ["val"], "emotion": "awe", "art_style": "A", "painting": "p"})
    table["tokens"] = [["sky", "sea"]] * 4 + [["sky", "fog", "sun"], ["sky", "sea", "rain"]]
    table["tokens_len"] = table["tokens"].map(len)
    made, vocabulary = add_text_columns(table, min_count=5)
    assert vocabulary == ["<pad>", "<sos>", "<eos>", "<unk>", "sky"] and words[:4] == vocabulary[:4]
    assert made["tokens_encoded"].tolist()[0] == "[1, 4, 3, 2, 0]"
    assert made["tokens_encoded"].tolist()[5] == "[1, 4, 3, 3, 2]"
    references = grouped_references(made, vocabulary)
    assert references["val"]["references"].tolist() == [["sky <unk> <unk>"]]
    assert references["val"]["references_pre_vocab"].tolist() == [["sky sea rain"]]


def test_a_very_long_text_does_not_lengthen_every_row(tmp_path):
    release = read(RELEASE)
    words = ["sky", "sea", "tree"] * 1000
    release.loc[[3, 5], "utterance"] = [" ".join(words), " ".join(words[:256])]
    release.to_csv(tmp_path / "release.csv", index=False)
    prepare_artemis.main(["--release_csv", str(tmp_path / "release.csv"), "--out_dir", str(tmp_path), "--jobs", "1"])
    mini = read(tmp_path / TABLES[1])
    encoded = mini["tokens_encoded"].map(json.loads)
    assert set(encoded.map(len)) == {258} and encoded[3] == encoded[5] and encoded[3][-1] == 2
    assert mini.loc[3, "utterance_spelled"].split() == words and mini.loc[3, "tokens_len"] == "3000"
    assert encoded[0][-1] == 0


def test_the_vocabulary_needs_no_artemis_and_keeps_its_order(tmp_path):
    words = ["<pad>", "<sos>", "<eos>", "<unk>", "zebra", "apple"]
    write_vocabulary(tmp_path / "vocabulary.pkl", words)
    assert load_vocabulary(tmp_path / "vocabulary.pkl") == {word: index for index, word in enumerate(words)}
    assert b"artemis.utils.vocabulary\nVocabulary\n" in (tmp_path / "vocabulary.pkl").read_bytes()


def test_a_number_of_artworks_divisible_by_20_gives_val_one_more():
    assert Counter(split_artworks([f"{n:03}" for n in range(160)]).values()) == {"train": 135, "val": 9, "test": 16}
    assert Counter(split_artworks([f"{n:03}" for n in range(156)]).values()) == {"train": 132, "val": 8, "test": 16}


def test_the_order_and_number_of_rows_do_not_move_an_artwork():
    names = [f"{n:03}" for n in range(200)]
    assert split_artworks(names) == split_artworks(names[::-1] * 3)


def test_a_split_column_of_the_release_wins(tmp_path):
    release = read(RELEASE)
    artworks = release["art_style"] + release["painting"]
    release["split"] = ["val" if name < sorted(set(artworks))[20] else "train" for name in artworks]
    release.to_csv(tmp_path / "release.csv", index=False)
    prepare_artemis.main(["--release_csv", str(tmp_path / "release.csv"), "--out_dir", str(tmp_path), "--jobs", "1"])
    made = read(tmp_path / "preprocess_data_nets/artemis_preprocessed.csv")
    merged = made.merge(release[["art_style", "painting", "split"]].drop_duplicates(), on=["art_style", "painting"])
    assert len(merged) == len(made) and (merged["split_x"] == merged["split_y"]).all()


# ---- ArtEmis v2.0 ----------------------------------------------------------------------------------------------------


def contrastive(old, artworks=60):
    """New annotations of new artworks (5 to 8 each), one in six of an old artwork; anchors among the first old ones."""
    ids = sorted(set(zip(old["art_style"], old["painting"], strict=True)))
    rows = []
    for number in range(artworks):
        style, painting = ids[-number - 1] if number % 6 == 0 else ("Rococo", f"new-é-{number}")
        anchor_style, anchor = ids[number % 20]
        for vote in range(5 + number % 4):
            emotion = ("awe", "fear")[vote % 2]
            text = f"the sky over this old town {number} feels so calm"
            rows.append((style, painting, emotion, text, 5 + number % 4, anchor_style, anchor))
    columns = ["art_style", "painting", "emotion", "utterance", "repetition", "anchor_art_style", "anchor_painting"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v2")
    contrastive(read(RELEASE)).to_csv(folder / "Contrastive.csv", index=False)
    arguments = ["--release_csv", RELEASE, "--contrastive_csv", folder / "Contrastive.csv", "--out_dir", folder]
    prepare_artemis.main([*map(str, arguments), "--jobs", "1"])
    return folder


def artworks_of(table):
    return set(table["art_style"] + table["painting"])


def test_v2_splits(v2):
    made = read(v2 / "preprocess_data_nets/artemis_preprocessed.csv")
    kept = made[made["split"] != "rest"]
    assert kept["version"].tolist() == sorted(kept["version"])  # new before old
    assert all(name == unicodedata.normalize("NFD", name) for name in [*made["painting"], *made["anchor_painting"]])
    parts = {split: artworks_of(rows) for split, rows in made.groupby("split")}
    assert sum(map(len, parts.values())) == len(artworks_of(made))

    new = made[made["version"] == "new"]
    held_out = new[new["split"] != "train"]
    assert set(held_out["repetition"]) == {"5"}  # the 15 artworks of five annotations suffice
    assert artworks_of(new[new["split"] == "test"]) and max(artworks_of(new[new["split"] == "test"])) < min(
        artworks_of(new[new["split"] == "val"])
    )
    old_only = artworks_of(made[made["version"] == "old"]) - artworks_of(new)
    anchors = set(new["anchor_art_style"] + new["anchor_painting"]) - parts["rest"] - artworks_of(new)
    assert anchors & old_only <= parts["train"]


def test_v2_split_by_hand():
    """20 new artworks of 5 and 20 of 6: 33 of the 220 rows are wanted, 7 artworks of 5; 4 of them are test."""
    new = [("N", f"n{n:02}", 5 + n // 20, "new", "O", f"o{n % 10:02}") for n in range(40)]
    rows = [row for row in new for _ in range(row[2])]
    rows += [("O", f"o{n:03}" if n >= 100 else f"o{n:02}", 5, "old", "", "") for n in range(110) for _ in range(5)]
    rows += [("O", "often", 45, "old", "", "")] + [("N", "n00", 45, "old", "", "")]
    columns = ["art_style", "painting", "repetition", "version", "anchor_art_style", "anchor_painting"]
    table = pd.DataFrame(rows, columns=columns)
    split = dict(zip(table["painting"], split_v2(table), strict=True))
    assert [split[f"n{n:02}"] for n in range(8)] == ["test"] * 4 + ["val"] * 3 + ["train"]
    assert all(split[f"n{n:02}"] == "train" for n in range(7, 40))
    assert all(split[f"o{n:02}"] == "train" for n in range(10))
    assert split["often"] == "rest"  # but n00, new and often, is one artwork in one split
    others = Counter(split[name] for name in split if name[0] == "o" and name != "often")
    assert others == {"train": 110 - 17, "val": 5, "test": 12}  # ceil(0.15 * 110) = 17, ceil(17 * 2 / 3) = 12
    with pytest.raises(InputError, match="too few"):
        split_v2(table[table["painting"].str.fullmatch("n..|o0.")])


def test_v2_anchors_without_a_style(tmp_path, v2):
    new = contrastive(read(RELEASE))
    new.drop(columns="anchor_art_style").to_csv(tmp_path / "Contrastive.csv", index=False)
    arguments = ["--release_csv", RELEASE, "--contrastive_csv", tmp_path / "Contrastive.csv", "--out_dir", tmp_path]
    prepare_artemis.main([*map(str, arguments), "--jobs", "1"])
    name = "preprocess_data_nets/artemis_preprocessed.csv"
    pd.testing.assert_frame_equal(read(tmp_path / name)[["split"]], read(v2 / name)[["split"]])


# ---- refused input -----------------------------------------------------------------------------------------------------

GOOD = f"--release_csv {RELEASE_CSV} --out_dir out --jobs 1"
SPLIT_HEADER = RELEASE_HEADER.replace("\n", ",split\n")

# what -> (content of the release, message behind its name)
RELEASES = {
    "of another header": ("a,b\n1,2\n", "has no column .*"),
    "empty": ("", "has no column "),
    "without rows": (RELEASE_HEADER, "has no rows"),
    "in latin-1": (
        RELEASE_HEADER.encode() + "Baroque,caf\xe9,awe,text,1\n".encode("latin-1"),
        "line 2: not UTF-8 text",
    ),
    "in UTF-16": (RELEASE_HEADER.encode("utf-16"), "has no rows"),
    "of ragged rows": (RELEASE_HEADER + "Baroque,p,awe,text,1,more,and more\n", "not a readable csv"),
    "of short rows": (RELEASE_HEADER + "Baroque,p,awe\n", "row 1: |not a readable csv"),
    "with an open quote": (RELEASE_HEADER + 'Baroque,p,awe,"text,1\n', "not a readable csv"),
    "of an unknown emotion": (
        RELEASE_HEADER + "Baroque,p,joy,text,1\n",
        "row 1: unknown emotion 'joy' .known: amusement",
    ),
    "of half a repetition": (RELEASE_HEADER + "Baroque,p,awe,text,1.5\n", "row 1: repetition '1.5' is not an integer"),
    "of an unknown split": (SPLIT_HEADER + "Baroque,a,awe,text,1,dev\n", "unknown split 'dev'"),
    "already preprocessed": (
        RELEASE_HEADER.replace("\n", ",tokens\n") + "Baroque,p,awe,text,1,[]\n",
        "has a column tokens",
    ),
    "without training rows": (SPLIT_HEADER + "Baroque,a,awe,text,1,val\n", "no row has the split train"),
    "of an artwork in two splits": (
        SPLIT_HEADER + "Baroque,a,awe,text,1,val\nBaroque,a,awe,text,1,train\n",
        "Baroque/a is in several splits",
    ),
}


@pytest.mark.parametrize(("content", "message"), RELEASES.values(), ids=RELEASES)
def test_refused_releases(box, content, message):
    box.write(RELEASE_CSV, content)
    check_refused(box, main, GOOD, f"{RELEASE_CSV}: {message}")


def test_releases_of_too_few_artworks_are_refused(box):
    box.write(RELEASE_CSV, RELEASE_HEADER + "Baroque,a,awe,text,1\nBaroque,b,awe,text,1\n")
    check_refused(box, main, GOOD, "2 artworks are too few to be split")


def test_releases_of_short_texts_are_refused(box):
    for text in TEXTS:
        box.replace(RELEASE_CSV, text, "dull", -1)
    check_refused(box, main, GOOD, f"{RELEASE_CSV}: no training text has between 5 tokens")


# what -> (flag, name of its file, content, message behind the file's name)
WORD_LISTS = {
    "spelling list of numbers": ("--spelling", "s.json", '{"teh": 3}', "the right spelling of 'teh' must be a text"),
    "spelling list that acts": (
        "--spelling",
        "s.py",
        "a = {'b': __import__('os').system('echo harm > canary')}",
        "not Python code whose dictionaries are literals",
    ),
    "spelling list without a dictionary": ("--spelling", "s.py", "x = 3", "contains no dictionary"),
    "spelling list of broken Python": ("--spelling", "s.py", "x = (", "not Python code"),
    "spelling list of a JSON list": ("--spelling", "s.json", "[]", "not a JSON object"),
    "known words in latin-1": ("--known_words", "w.txt", b"caf\xe9 1\n", "not UTF-8 text"),
    "known words empty": ("--known_words", "w.txt", "\n\n", "contains no words"),
}


@pytest.mark.parametrize(("flag", "name", "content", "message"), WORD_LISTS.values(), ids=WORD_LISTS)
def test_refused_word_lists(box, flag, name, content, message):
    box.write(name, content)
    check_refused(box, main, f"{GOOD} {flag} {name}", f"{name}: {message}")


# command line -> message
ARGV = {
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
def test_refused_flags(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)
