"""ArtEmis' own files: how artworks are divided into train, val, test and rest, the tables, and the two pickles.

The pickles (vocabulary, grouped references) are written so that ArtEmis' own tools load them with any version of pandas.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from utils.constants import EMOTION_INDEX, EMOTIONS, MOST_ANNOTATIONS
from utils.data.untrusted_files import SPECIAL_SYMBOLS
from utils.errors import InputError
from utils.files import atomic_path

# ---- splits of v1.0 and v2.0, and the published sets of v2.0 ---------------------------------------------------------


SEED = 2021
VAL_FRACTION, TEST_FRACTION = 0.05, 0.10
V2_HELD_OUT = 0.15  # fraction of val and test together

TRAIN_SETS = ("full_combined", "new", "old_full", "old_small", "old_large", "combined")
TEST_SETS = ("test_new", "test_ref", "test_old", "test_all", "test_40")


def split_artworks(artworks: Sequence[str], seed: int = SEED) -> dict[str, str]:
    """ArtEmis' 85/5/10 split of artworks: id -> "train", "val" or "test".

    scikit-learn splits the sorted unique ids with a seed (2021 in ArtEmis): first train from the others, then val from
    test. As in ArtEmis, the fractions of val and test are added as floats (0.15000000000000002). If the number of
    artworks is divisible by 20, val therefore gets one more.

    Raises:
        InputError: there are too few artworks for three splits.
    """
    unique = np.unique(np.asarray(artworks, dtype=str))
    try:
        train, others = train_test_split(unique, test_size=VAL_FRACTION + TEST_FRACTION, random_state=seed)
        val, test = train_test_split(others, test_size=round(TEST_FRACTION * len(unique)), random_state=seed)
    except ValueError:
        raise InputError(f"{len(unique)} artworks are too few to be split 85/5/10; give the whole release") from None
    return {
        artwork: name for name, part in (("train", train), ("val", val), ("test", test)) for artwork in part.tolist()
    }


def split_v1(table: pd.DataFrame, rest: bool) -> pd.Series:
    """The split of every row of v1.0.

    Args:
        table: columns art_style, painting, repetition (int).
        rest: assign artworks with 41 or more annotations to the split "rest", before the random split of the others.

    Raises:
        InputError: there are too few artworks for three splits.
    """
    artworks = artwork_ids(table)
    drawn = table["repetition"] <= MOST_ANNOTATIONS if rest else pd.Series(True, index=table.index)
    return artworks.map(split_artworks(artworks[drawn])).where(drawn, "rest")


def split_v2(table: pd.DataFrame) -> pd.Series:
    """The split of every row of v2.0, for new (contrastive) and old annotations together.

    - Artworks with new annotations: take those of repetition 5, then 6, ... up to 9, each group sorted by id, until
      they have 15 % of the new rows. The first two thirds of the taken artworks are test, the others val. All artworks
      that are not taken are train.
    - Artworks with old annotations only: those with 41 or more annotations are "rest"; anchors of new ones are train.
      The others are split at random with seed 2021, so that val and test together have 15 % of the old-only artworks,
      and test two thirds of these.

    The published code iterates over unordered sets, so its exact split cannot be reproduced. Here ids are sorted first.

    Args:
        table: columns art_style, painting, repetition (int), version ("new"/"old"), anchor_art_style, anchor_painting.

    Raises:
        InputError: there are too few old artworks for val and test.
    """
    artworks = artwork_ids(table)
    is_new = table["version"] == "new"
    split = _split_new(artworks[is_new], table.loc[is_new, "repetition"])

    often = set(artworks[~is_new & (table["repetition"] > MOST_ANNOTATIONS)]) - set(split)
    old_only = sorted(set(artworks) - set(split) - often)
    anchors = set(table.loc[is_new, "anchor_art_style"] + table.loc[is_new, "anchor_painting"]) & set(old_only)
    split |= dict.fromkeys(often, "rest") | dict.fromkeys(anchors, "train")

    others = [artwork for artwork in old_only if artwork not in anchors]
    evaluated = V2_HELD_OUT * len(old_only)
    remaining_train = (1 - V2_HELD_OUT) * len(old_only) - len(anchors)
    try:
        train, held_out = train_test_split(
            others, test_size=evaluated / (evaluated + remaining_train), random_state=SEED
        )
        val, test = train_test_split(held_out, test_size=2 / 3, random_state=SEED)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"{len(others)} old artworks that are not anchors are too few for val and test; give the whole release and "
            "the whole Contrastive.csv"
        ) from None
    split |= dict.fromkeys(train, "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    return artworks.map(split)


def _split_new(artworks: pd.Series, repetition: pd.Series) -> dict[str, str]:
    rows_of = artworks.value_counts()
    wanted, rows, taken = int(V2_HELD_OUT * len(artworks)), 0, []
    for count in range(5, 10):
        for artwork in sorted(set(artworks[repetition == count]) - set(taken)):
            if rows >= wanted:
                break
            taken.append(artwork)
            rows += rows_of[artwork]
    tests = int(len(taken) * 2 / 3)
    return dict.fromkeys(artworks, "train") | dict.fromkeys(taken, "val") | dict.fromkeys(taken[:tests], "test")


def v2_set(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one of `TRAIN_SETS` or `TEST_SETS`.

    Papers on v2.0 train on "combined" and report scores on "test_all".

    Training sets:
        full_combined: all training rows.
        new, old_full: all training rows of one version.
        old_small: a random sample of old rows, as many as there are new rows, or all if there are fewer.
        old_large: the same with twice as many rows.
        combined: new and old_small.

    Test sets:
        test_new, test_ref: all test rows of the new and of the old version.
        test_old: the old test rows of a random half of their artworks.
        test_all: test_new and test_old.
        test_40: the split "rest".

    Args:
        table: all cleaned rows, with the columns art_style, painting, version ("new"/"old") and split. They must be in
            the file's order, because the random samples depend on it.
        name: the name of the set.
    """
    new, old = table[table["version"] == "new"], table[table["version"] == "old"]
    if name == "test_40":
        return table[table["split"] == "rest"]
    if name in TEST_SETS:
        new, old = new[new["split"] == "test"], old[old["split"] == "test"]
        half = old
        if name in ("test_old", "test_all"):
            ids = np.unique(artwork_ids(old).to_numpy(dtype=str))
            chosen = np.random.RandomState(42).choice(ids, len(ids) // 2, replace=False) if len(ids) else ids
            half = old[artwork_ids(old).isin(chosen)]
        return {"test_new": new, "test_ref": old, "test_old": half, "test_all": pd.concat([new, half])}[name]
    new, old = new[new["split"] == "train"], old[old["split"] == "train"]
    if name in ("full_combined", "new", "old_full"):
        return {"full_combined": pd.concat([new, old]), "new": new, "old_full": old}[name]
    sample = old.sample(min(len(new) * (2 if name == "old_large" else 1), len(old)), random_state=42)
    return pd.concat([new, sample]) if name == "combined" else sample


def artwork_ids(table: pd.DataFrame) -> pd.Series:
    """art_style + painting of every row, the ids by which ArtEmis sorts and samples artworks."""
    return table["art_style"] + table["painting"]


# ---- tables and pickles ----------------------------------------------------------------------------------------------


RELEASE_COLUMNS = ["art_style", "painting", "emotion", "utterance", "repetition"]
CLEANED_COLUMNS = ["split", "tokens", "tokens_len", "utterance_spelled", "tokens_encoded", "emotion_label"]
MIN_WORD_COUNT = 5  # words that occur less often in training texts become <unk>
LONGEST_ENCODED = 256  # tokens; one very long text must not lengthen every row
ROWS_WRITTEN_AT_ONCE = 10_000
PAD_ID, SOS_ID, EOS_ID, UNK_ID = range(len(SPECIAL_SYMBOLS))


def emotion_histograms(table: pd.DataFrame) -> pd.DataFrame:
    """Count the votes of every artwork: columns art_style, painting, emotion_histogram ("[0.0, 2.0, ...]")."""
    artworks = [table["art_style"], table["painting"]]
    votes = pd.crosstab(artworks, table["emotion"]).reindex(columns=list(EMOTIONS), fill_value=0)
    histograms = [str(row) for row in votes.to_numpy(dtype=float).tolist()]
    return votes.index.to_frame(index=False).assign(emotion_histogram=histograms)


class TextColumns:
    """Adds to rows with the columns emotion and `utterance_spelled` (words and spaces) those that follow from them.

    tokens_encoded is <sos>, the words' indices, <eos>, and <pad> up to the length of the longest text, at most
    LONGEST_ENCODED words; a longer text is cut there, as ArtEmis encodes with a maximal length.

    Args:
        table: all rows, with the columns split, utterance_spelled and tokens_len.
        min_count: how often a word must occur in training texts to be in the vocabulary.

    Attributes:
        vocabulary: the special symbols, then the words of training texts in the order of first occurrence.
    """

    def __init__(self, table: pd.DataFrame, min_count: int) -> None:
        texts = table.loc[table["split"] == "train", "utterance_spelled"].tolist()
        counts = Counter(word for text in texts for word in text.split())
        self.vocabulary = [*SPECIAL_SYMBOLS, *(word for word, count in counts.items() if count >= min_count)]
        self._index_of = {word: index for index, word in enumerate(self.vocabulary)}
        self._longest = min(int(table["tokens_len"].max()), LONGEST_ENCODED)

    def add(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with the release's columns and `CLEANED_COLUMNS`."""
        texts = [text.split() for text in rows["utterance_spelled"].tolist()]
        release_columns = [column for column in rows.columns if column not in CLEANED_COLUMNS]
        rows = rows.assign(
            tokens=[str(tokens) for tokens in texts],
            tokens_encoded=[str(self._encode(tokens)) for tokens in texts],
            emotion_label=rows["emotion"].map(EMOTION_INDEX),
        )
        return rows[release_columns + CLEANED_COLUMNS]

    def _encode(self, tokens: list[str]) -> list[int]:
        indices = [self._index_of.get(token, UNK_ID) for token in tokens[: self._longest]]
        return [SOS_ID, *indices, EOS_ID] + [PAD_ID] * (self._longest - len(tokens))


def add_text_columns(table: pd.DataFrame, min_count: int) -> tuple[pd.DataFrame, list[str]]:
    """The table with all columns of `TextColumns`, from its `tokens` (lists of words); and the vocabulary."""
    table = table.assign(utterance_spelled=[" ".join(tokens) for tokens in table["tokens"]])
    columns = TextColumns(table, min_count)
    return columns.add(table), columns.vocabulary


def grouped_references(table: pd.DataFrame, vocabulary: list[str]) -> dict[str, pd.DataFrame]:
    """Split -> a table with one row per artwork: its labels, and its texts with rare words and with <unk> instead."""
    known = set(vocabulary)
    references = [
        " ".join(word if word in known else SPECIAL_SYMBOLS[UNK_ID] for word in text.split(" "))
        for text in table["utterance_spelled"].tolist()
    ]
    table = table[["art_style", "painting", "split"]].assign(
        emotion=table["emotion"].map(EMOTION_INDEX),
        references_pre_vocab=table["utterance_spelled"],
        references=references,
    )
    return {
        split: rows.drop(columns="split").groupby(["art_style", "painting"]).agg(list).reset_index()
        for split, rows in table.groupby("split")
    }


def write_table(path: Path, table: pd.DataFrame, add_columns: Callable = lambda rows: rows) -> None:
    """Write a table; `add_columns` converts some of its rows at a time, so that all need not be in memory."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, max(len(table), 1), ROWS_WRITTEN_AT_ONCE):  # the header of an empty table, too
            rows = add_columns(table.iloc[start : start + ROWS_WRITTEN_AT_ONCE])
            rows.to_csv(file, index=False, header=start == 0, lineterminator="\n")


class _Vocabulary:
    """Represents `artemis.utils.vocabulary.Vocabulary`, which need not be installed."""


class _Table:
    """A table that is pickled as a call of `pandas.DataFrame` on its columns.

    A pickled DataFrame contains internals of one version of pandas and numpy. Every version can load this form.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.columns = {column: frame[column].tolist() for column in frame.columns}

    def __reduce__(self) -> tuple[Any, ...]:
        return pd.DataFrame, (self.columns,)


class _Pickler(pickle._Pickler):
    """The standard library's Python pickler; the C version would have to import the classes that it names."""

    def save_global(self, cls: type, name: str | None = None) -> None:
        self.write(b"cartemis.utils.vocabulary\nVocabulary\n")
        self.memoize(cls)


def write_vocabulary(path: str | Path, words: list[str]) -> None:
    """Write `vocabulary.pkl`: an `artemis.utils.vocabulary.Vocabulary` that maps each word to its index in `words`.

    Args:
        path: the file.
        words: <pad>, <sos>, <eos>, <unk>, then all other words.
    """
    vocabulary = _Vocabulary()
    vocabulary.word2idx = {word: index for index, word in enumerate(words)}
    vocabulary.idx2word = dict(enumerate(words))
    vocabulary.idx = len(words)
    vocabulary.special_symbols = words[: len(SPECIAL_SYMBOLS)]
    vocabulary.pad, vocabulary.sos, vocabulary.eos, vocabulary.unk = range(len(SPECIAL_SYMBOLS))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        _Pickler(file, protocol=2).dump(vocabulary)


def write_grouped_references(path: str | Path, frames: dict[str, pd.DataFrame]) -> None:
    """Write `artemis_gt_references_grouped.pkl`: the count 1, then a dictionary of split -> DataFrame."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(1, file, protocol=2)
        pickle.dump({split: _Table(frame) for split, frame in frames.items()}, file, protocol=2)
