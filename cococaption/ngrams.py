"""Counts of n-grams of 1 to 4 words as integer arrays, for BLEU and CIDEr.

Every distinct n-gram has a number. It is found by looking up the pair (number of the first n - 1 words, number of the
last word) in a sorted table. Candidates therefore find the numbers of the references' n-grams without a dictionary of
tuples, which would be slower.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAX_N = 4
_SHIFT = 32  # two numbers below 2**31 are packed into one int64


class Counts(NamedTuple):
    """The n-grams of one length in a list of texts: a row per text and distinct n-gram, sorted by text, then n-gram."""

    text: np.ndarray  # int64 [E], index of the text
    gram: np.ndarray  # int64 [E], number of the n-gram
    count: np.ndarray  # int64 [E], how often the n-gram occurs in the text


class Numbering(NamedTuple):
    """The numbers of known n-grams: word -> number, and a sorted table of pairs for n = 2, 3, 4."""

    words: dict[str, int]
    tables: tuple[np.ndarray, np.ndarray, np.ndarray]

    def size(self, n: int) -> int:
        """Number of known n-grams of n words."""
        return len(self.words) if n == 1 else len(self.tables[n - 2])


EMPTY = Numbering({}, (np.empty(0, np.int64),) * 3)


def pack(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Combine two numbers below 2**31 into one int64 that sorts like the pair."""
    return high << _SHIFT | low


def unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two numbers in `pack(high, low)`."""
    return packed >> _SHIFT, packed & (1 << _SHIFT) - 1


def find(keys: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `keys` in the sorted `table`, and whether each key is there; if not, its index is meaningless."""
    if not len(table):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return place, table[place] == keys


def count_ngrams(texts: Sequence[str], known: Numbering) -> tuple[list[Counts], np.ndarray, Numbering]:
    """Count the n-grams of 1 to 4 words in each of T texts; `str.split()` gives the words.

    N-grams that are not in `known` get new numbers, starting at `known.size(n)`.

    Returns:
        the counts for n = 1, 2, 3, 4; the number of words of each text, int64 [T]; and the numbering of the new n-grams
        only. If `known` is EMPTY, the latter is the complete numbering and can be passed as `known` for later texts.
    """
    fresh: dict[str, int] = {}
    numbers: list[int] = []
    lengths = np.zeros(len(texts), np.int64)
    for index, text in enumerate(texts):
        words = text.split()
        lengths[index] = len(words)
        for word in words:
            number = known.words.get(word)
            numbers.append(fresh.setdefault(word, len(known.words) + len(fresh)) if number is None else number)
    word = np.array(numbers, np.int64)
    text = np.repeat(np.arange(len(texts)), lengths)
    words_left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(word))

    counts, tables = [], []
    gram, start = word, np.arange(len(word))  # number and first position of every n-gram in the texts
    for n in range(1, MAX_N + 1):
        if n > 1:
            longer = words_left[start] >= n
            gram, start = gram[longer], start[longer]
            keys = pack(gram, word[start + n - 1])
            gram, is_known = find(keys, known.tables[n - 2])
            table, number = np.unique(keys[~is_known], return_inverse=True)
            gram[~is_known] = known.size(n) + number
            tables.append(table)
        row, count = np.unique(pack(text[start], gram), return_counts=True)
        counts.append(Counts(*unpack(row), count))
    return counts, lengths, Numbering(fresh, tuple(tables))
