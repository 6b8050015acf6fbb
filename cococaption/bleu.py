"""BLEU-1..4 as in pycocoevalcap 1.2, from counts that can be summed over any selection of images."""

import numpy as np

from cococaption.references import MAX_N, Counts, References, find, pack

SMALL, TINY = 1e-9, 1e-15  # pycocoevalcap adds them to denominators and numerators


def bleu_counts(references: References, counts: list[Counts], lengths: np.ndarray) -> np.ndarray:
    """The counts from which BLEU is computed, for every image.

    Args:
        references: references of I images.
        counts: n-gram counts of the I candidates for n = 1..4, numbered by `references.numbering`.
        lengths: words per candidate, int64 [I].

    Returns:
        int64 [I, 10]: clipped matches for n = 1..4, n-grams of the candidate for n = 1..4, its words, and the words of
        the reference closest in length.
    """
    matches = np.zeros((len(lengths), MAX_N), np.int64)
    for n, (candidate, most) in enumerate(zip(counts, references.most, strict=True)):
        place, found = find(pack(candidate.text, candidate.gram), pack(most.text, most.gram))
        clipped = np.minimum(candidate.count[found], most.count[place[found]])
        np.add.at(matches[:, n], candidate.text[found], clipped)
    ngrams = np.maximum(lengths[:, None] - np.arange(MAX_N), 0)
    closest = [
        min(reference_lengths, key=lambda reference: (abs(reference - length), reference))
        for length, reference_lengths in zip(lengths.tolist(), references.lengths_per_image(), strict=True)
    ]
    return np.column_stack([matches, ngrams, lengths, np.array(closest, np.int64)])


def bleu_of_counts(totals: np.ndarray) -> np.ndarray:
    """BLEU-1..4, [..., 4] in [0, 1], of sums of `bleu_counts`, [..., 10]: pycocoevalcap's formula for any selection."""
    totals = np.asarray(totals, np.float64)
    correct, guess = totals[..., :MAX_N], totals[..., MAX_N : 2 * MAX_N]
    tested, reference = totals[..., -2, None], totals[..., -1, None]
    scores = np.cumprod((correct + TINY) / (guess + SMALL), axis=-1) ** (1 / np.arange(1, MAX_N + 1))
    ratio = (tested + TINY) / (reference + SMALL)
    return scores * np.exp(np.minimum(1 - 1 / ratio, 0))
