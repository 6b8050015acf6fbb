"""Diversity and novelty of the generated texts, and the warning of a collapse to few sentences."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from cococaption.bleu import bleu_of_counts
from cococaption.references import MAX_N

METAPHORS = (
    "could be",
    "appears to be",
    "appear to be",
    "reminds me",
    "remind me",
    "seems like",
    "looks like",
    "look like",
    "is like",
    "are like",
    "think of",
    "resembles",
    "resembling",
)
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, with apostrophes inside
SELF_BLEU_TEXTS, SEED = 500, 2021

# A collapse: more than this share of the images is served by the most frequent sentences, one for each 20 images.
COLLAPSED_SHARE, SENTENCES_PER_IMAGE = 0.5, 0.05
FEWEST_IMAGES = 20  # with fewer, repetition means little


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORD.findall(text.lower().replace("\u2019", "'"))


def normalized(text: str) -> str:
    """A text in lower case, its words separated by single spaces."""
    return " ".join(text.lower().split())


def has_metaphor(text: str) -> bool:
    """Whether a text contains one of `METAPHORS`, anywhere and in lower or upper case."""
    text = normalized(text)
    return any(phrase in text for phrase in METAPHORS)


# ---- diversity -------------------------------------------------------------------------------------------------------


def text_diversity(texts: Sequence[str], references: Iterable[str]) -> dict[str, float | int]:
    """Diversity of the generated texts (at least one), as fractions 0 .. 1 but for the two counts of words.

    Returns:
        Unique: distinct / all texts. metaphors: share of texts with one of `METAPHORS`. mean_length: words between spaces.
        distinct_words: their number, in lower case. distinct_1, distinct_2: distinct words and pairs of neighbouring words
        / all words (Li et al., 2016). self_BLEU_4: see `self_bleu`; lower is more diverse. coverage: share of the
        references' distinct words that the texts use. The last four are left out where there is nothing to count.
    """
    plain = [normalized(text) for text in texts]
    scores = {
        "Unique": len(set(plain)) / len(texts),
        "metaphors": sum(map(has_metaphor, texts)) / len(texts),
        "mean_length": sum(len(text.split()) for text in texts) / len(texts),
        "distinct_words": len({word for text in plain for word in text.split()}),
    }
    tokenized = [words_of(text) for text in texts]
    used = {word for words in tokenized for word in words}
    pairs = {pair for words in tokenized for pair in zip(words, words[1:], strict=False)}
    if total := sum(map(len, tokenized)):
        scores |= {"distinct_1": len(used) / total, "distinct_2": len(pairs) / total}
    if len(tokenized) > 1:
        scores["self_BLEU_4"] = self_bleu(tokenized)
    if known := {word for text in references for word in words_of(text)}:
        scores["coverage"] = len(used & known) / len(known)
    return scores


def self_bleu(tokenized: Sequence[Sequence[str]], sample: int = SELF_BLEU_TEXTS) -> float:
    """Self-BLEU-4 (Zhu et al., 2018): the mean BLEU-4 of each text against all others, 0 .. 1, without smoothing.

    Args:
        tokenized: at least two texts as lists of words; `sample` of them are drawn when there are more, since the score
            grows with the number of texts and two runs must draw the same number.
    """
    if len(tokenized) > sample:
        tokenized = random.Random(SEED).sample(list(tokenized), sample)
    rows = np.zeros((len(tokenized), 2 * MAX_N + 2))  # as in `bleu_counts`
    for n in range(1, MAX_N + 1):
        counts = [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in tokenized]
        highest: dict[tuple[str, ...], tuple[int, int]] = {}  # n-gram -> its two highest counts in one text
        for text_counts in counts:
            for gram, count in text_counts.items():
                best, second = highest.get(gram, (0, 0))
                highest[gram] = (count, best) if count > best else (best, max(second, count))
        for row, text_counts in zip(rows, counts, strict=True):
            for gram, count in text_counts.items():
                best, second = highest[gram]
                # the highest count in the other texts is the second one where this text has the highest
                row[n - 1] += min(count, second if count == best else best)
            row[MAX_N + n - 1] = text_counts.total()
    lengths = [len(words) for words in tokenized]
    frequency = Counter(lengths)
    for row, length in zip(rows, lengths, strict=True):
        others = [other for other, times in frequency.items() if times > (other == length)]
        row[-2:] = length, min(others, key=lambda other: (abs(other - length), other))
    return float(bleu_of_counts(rows)[:, 3].mean())


# ---- novelty ---------------------------------------------------------------------------------------------------------


class _TextSample:
    """Texts laid behind one another as the bits of one integer, so that one sum advances the LCS with all of them.

    A text of n words takes n bits and a guard bit that catches its carry. The recurrence is the bit-parallel one of
    Hyyrö (2004): V starts as ones; for each word of the other text, with u = V & (places of that word),
    V = (V + u) | (V - u); in the end each 0 in a text's bits is one word of the longest common subsequence.
    """

    def __init__(self, texts: Iterable[str]):
        words = [text.lower().split() for text in texts]
        self.lengths = np.array([len(text) for text in words], dtype=np.int64)
        self.starts = np.cumsum(self.lengths + 1) - self.lengths - 1
        self.places: dict[str, list[int]] = {}
        for start, text in zip(self.starts.tolist(), words, strict=True):
            for place, word in enumerate(text, start):
                self.places.setdefault(word, []).append(place)
        self.size = int((self.lengths + 1).sum())
        self.masks: dict[str, int] = {}
        self.text_bits = (1 << self.size) - 1 ^ self._integer((self.starts + self.lengths).tolist())

    def _integer(self, places: list[int]) -> int:
        bits = np.zeros(self.size, dtype=np.uint8)
        bits[places] = 1
        return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")

    def longest_common(self, text: str) -> int:
        """The longest common subsequence, in words, of `text` with any text of the sample."""
        bits = self.text_bits
        for word in text.lower().split():
            if word not in self.places:
                continue
            if word not in self.masks:
                self.masks[word] = self._integer(self.places[word])
            matched = bits & self.masks[word]
            bits = ((bits + matched) | (bits - matched)) & self.text_bits
        raw = np.frombuffer(bits.to_bytes((self.size + 7) // 8, "little"), dtype=np.uint8)
        ones = np.add.reduceat(np.unpackbits(raw, count=self.size, bitorder="little"), self.starts, dtype=np.int64)
        return int((self.lengths - ones).max())


def max_lcs(
    explanations: Sequence[str], training_texts: Sequence[str], sample: int = 5000, seed: int = SEED
) -> list[int]:
    """Novelty: the longest common subsequence, in words, of each explanation with any of a sample of training texts.

    Args:
        explanations: the generated texts; words between spaces, in lower case.
        training_texts: all of them, none empty; `sample` are drawn with `seed` when there are more, in the order given.

    Returns:
        one length for each explanation, in words; the score is their mean, and lower is more novel.
    """
    if sample < len(training_texts):
        chosen = sorted(random.Random(seed).sample(range(len(training_texts)), sample))
        training_texts = [training_texts[index] for index in chosen]
    sampled = _TextSample(training_texts)
    lengths = {text: sampled.longest_common(text) for text in set(explanations)}
    return [lengths[text] for text in explanations]


# ---- collapse --------------------------------------------------------------------------------------------------------


def collapse_warning(explanations: Sequence[str]) -> str | None:
    """One line where few sentences serve most images, which scores alone do not show; else None.

    That is: the most frequent sentences, one for each 20 images, are together those of more than half of the images.
    Upper case and spacing are ignored. Fewer than 20 images are not checked.

    Args:
        explanations: one for each image.
    """
    images = len(explanations)
    if images < FEWEST_IMAGES:
        return None
    counts = Counter(map(normalized, explanations))
    frequent = counts.most_common(int(SENTENCES_PER_IMAGE * images))
    served = sum(count for _, count in frequent)
    if served <= COLLAPSED_SHARE * images:
        return None
    sentence, count = frequent[0]
    serve = "1 sentence serves" if len(frequent) == 1 else f"{len(frequent)} sentences serve"
    return (
        f"WARNING: the explanations have collapsed: {serve} {served / images:.0%} of {images} images; "
        f"{len(counts) / images:.0%} of all are distinct; the most frequent, of {count / images:.0%}, is {sentence[:80]!r}"
    )
