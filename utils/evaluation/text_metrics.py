"""How various the generated texts are as a whole: distinct n-grams, self-BLEU, coverage of the references' words."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from cococaption.bleu import bleu_of_counts
from cococaption.references import MAX_N

# ---- How various the generated texts are as a whole: distinct n-grams, self-BLEU, coverage of the --------------------


WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, with apostrophes inside
SAMPLE, SEED = 500, 2021


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return WORD.findall(text.lower().replace("\u2019", "'"))


def text_diversity(texts: Sequence[str], references: Iterable[str]) -> dict[str, float]:
    """Diversity of the generated texts, as fractions 0 .. 1; a score with nothing to count is left out.

    Returns:
        distinct_1, distinct_2: distinct words and pairs of neighbouring words / all words (Li et al., 2016). coverage:
        share of the references' distinct words that the texts use. self_BLEU_4: see `self_bleu`; lower is more various.
    """
    tokenized = [words_of(text) for text in texts]
    used = {word for words in tokenized for word in words}
    pairs = {pair for words in tokenized for pair in zip(words, words[1:], strict=False)}
    known = {word for text in references for word in words_of(text)}
    total = sum(map(len, tokenized))
    found = {"distinct_1": len(used) / total, "distinct_2": len(pairs) / total} if total else {}
    if len(tokenized) > 1:
        found["self_BLEU_4"] = self_bleu(tokenized)
    if known:
        found["coverage"] = len(used & known) / len(known)
    return found


def self_bleu(tokenized: Sequence[Sequence[str]], sample: int = SAMPLE, seed: int = SEED) -> float:
    """Self-BLEU-4 (Zhu et al., 2018): the mean BLEU-4 of each text against all others, 0 .. 1, without smoothing.

    Args:
        tokenized: at least two texts as lists of words; `sample` of them are drawn with `seed` when there are more,
            since the score grows with the number of texts and two runs must draw the same number.
    """
    if len(tokenized) > sample:
        tokenized = random.Random(seed).sample(list(tokenized), sample)
    rows = np.zeros((len(tokenized), 2 * MAX_N + 2))  # as in `bleu_counts`
    for n in range(1, MAX_N + 1):
        counts = [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in tokenized]
        highest: dict[tuple[str, ...], tuple[int, int]] = {}  # n-gram -> its two highest counts in one text
        for of_text in counts:
            for gram, count in of_text.items():
                best, second = highest.get(gram, (0, 0))
                highest[gram] = (count, best) if count > best else (best, max(second, count))
        for row, of_text in zip(rows, counts, strict=True):
            for gram, count in of_text.items():
                best, second = highest[gram]
                # the highest count in the other texts is the second one where this text has the highest
                row[n - 1] += min(count, second if count == best else best)
            row[MAX_N + n - 1] = of_text.total()
    lengths = [len(words) for words in tokenized]
    many = Counter(lengths)
    for row, length in zip(rows, lengths, strict=True):
        others = [other for other, times in many.items() if times > (other == length)]
        row[-2:] = length, min(others, key=lambda other: (abs(other - length), other))
    return float(bleu_of_counts(rows)[:, 3].mean())


# ---- A model that says the same of every image: told at each evaluation, as scores alone do not show ---------------


MOST_PICTURES, FEW_SENTENCES = 0.5, 0.05  # more than this share of the images, by at most this number per image
FEWEST_PICTURES = 20  # below, repetition means little


def collapse_warning(explanations: Sequence[str]) -> str | None:
    """One line where few sentences serve most images, else None.

    That is: the most frequent sentences, one for each 20 images, are together those of more than half of the images.
    Capitals and blanks are not looked at. Fewer than 20 images are not judged.

    Args:
        explanations: one for each image.
    """
    pictures = len(explanations)
    if pictures < FEWEST_PICTURES:
        return None
    counts = Counter(" ".join(text.lower().split()) for text in explanations)
    ranking = counts.most_common(int(FEW_SENTENCES * pictures))
    served = sum(count for _, count in ranking)
    if served <= MOST_PICTURES * pictures:
        return None
    sentence, count = ranking[0]
    return (
        f"WARNING: the explanations have collapsed: {len(ranking)} {'sentence serves' if len(ranking) == 1 else 'sentences serve'} "
        f"{served / pictures:.0%} of {pictures} images; {len(counts) / pictures:.0%} of all are distinct; the most frequent, "
        f"of {count / pictures:.0%}, is {sentence[:80]!r}"
    )
