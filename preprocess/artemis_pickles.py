"""Write the two pickles of ArtEmis' preprocessing. Its own tools can load them with any version of pandas and numpy.

`utils/data/untrusted_files.py` reads the vocabulary.
"""

import pickle
from pathlib import Path
from typing import Any

import pandas as pd

from utils.data.untrusted_files import SPECIAL_SYMBOLS
from utils.files import atomic_path


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
