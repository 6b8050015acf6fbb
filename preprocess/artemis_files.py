"""The files of ArtEmis' preprocessing: their tables' columns, the vocabulary, and the grouped references.

The two pickles are written in a form that ArtEmis' own tools can load with any version of pandas.
"""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.data.untrusted_files import SPECIAL_SYMBOLS
from utils.files import atomic_path

RELEASE_COLUMNS = ["art_style", "painting", "emotion", "utterance", "repetition"]
CLEANED_COLUMNS = ["split", "tokens", "tokens_len", "utterance_spelled", "tokens_encoded", "emotion_label"]
MIN_WORD_COUNT = 5  # words that occur less often in training texts become <unk>
LONGEST_ENCODED = 256  # tokens; one very long text must not lengthen every row
PAD_ID, SOS_ID, EOS_ID, UNK_ID = range(len(SPECIAL_SYMBOLS))


def emotion_histograms(table: pd.DataFrame) -> pd.DataFrame:
    """Count the votes of every artwork: columns art_style, painting, emotion_histogram ("[0.0, 2.0, ...]")."""
    artworks = [table["art_style"], table["painting"]]
    votes = pd.crosstab(artworks, table["emotion"]).reindex(columns=list(EMOTIONS), fill_value=0)
    histograms = [str(row) for row in votes.to_numpy(dtype=float).tolist()]
    return votes.index.to_frame(index=False).assign(emotion_histogram=histograms)


def add_text_columns(table: pd.DataFrame, min_count: int) -> tuple[pd.DataFrame, list[str]]:
    """Add the columns that depend on `tokens` (lists of words) and `split`, and convert `tokens` to text.

    tokens_encoded is <sos>, the words' indices, <eos>, and <pad> up to the length of the longest text, at most
    LONGEST_ENCODED words; a longer text is cut there, as ArtEmis encodes with a maximal length.

    Returns:
        the table with the release's columns and `CLEANED_COLUMNS`; and the vocabulary: the special symbols, then the
        words that occur at least `min_count` times in training texts, in the order of first occurrence.
    """
    counts = Counter(word for tokens in table.loc[table["split"] == "train", "tokens"] for word in tokens)
    vocabulary = [*SPECIAL_SYMBOLS, *(word for word, count in counts.items() if count >= min_count)]
    index_of = {word: index for index, word in enumerate(vocabulary)}
    longest = min(int(table["tokens_len"].max()), LONGEST_ENCODED)
    encoded = (
        [SOS_ID, *(index_of.get(token, UNK_ID) for token in tokens[:longest]), EOS_ID]
        + [PAD_ID] * (longest - len(tokens))
        for tokens in table["tokens"]
    )
    release_columns = [column for column in table.columns if column not in CLEANED_COLUMNS]
    table = table.assign(
        utterance_spelled=[" ".join(tokens) for tokens in table["tokens"]],
        tokens_encoded=[str(indices) for indices in encoded],
        emotion_label=table["emotion"].map(EMOTION_INDEX),
        tokens=[str(tokens) for tokens in table["tokens"]],
    )
    return table[release_columns + CLEANED_COLUMNS], vocabulary


def grouped_references(table: pd.DataFrame, vocabulary: list[str]) -> dict[str, pd.DataFrame]:
    """Split -> a table with one row per artwork: its labels, and its texts with rare words and with <unk> instead."""
    known = set(vocabulary)
    references = [
        " ".join(word if word in known else SPECIAL_SYMBOLS[UNK_ID] for word in text.split(" "))
        for text in table["utterance_spelled"]
    ]
    table = table[["art_style", "painting", "split"]].assign(
        emotion=table["emotion_label"], references_pre_vocab=table["utterance_spelled"], references=references
    )
    return {
        split: rows.drop(columns="split").groupby(["art_style", "painting"]).agg(list).reset_index()
        for split, rows in table.groupby("split")
    }


def write_table(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


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
