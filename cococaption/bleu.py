"""BLEU-1..4 as in pycocoevalcap 1.2: n-gram matches are counted here, pycocoevalcap computes BLEU from the counts."""

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from cococaption.ngrams import MAX_N, Counts, find, pack
from cococaption.references import References


def bleu(references: References, counts: list[Counts], lengths: np.ndarray) -> tuple[list[float], list[list[float]]]:
    """BLEU against the closest reference length.

    Args:
        references: references of I images.
        counts: n-gram counts of the I candidates for n = 1..4, numbered by `references.numbering`.
        lengths: words per candidate, int64 [I].

    Returns:
        corpus BLEU-1..4, and four lists with BLEU-1..4 of every image; all values in [0, 1].
    """
    correct = np.zeros((len(lengths), MAX_N), np.int64)
    for n, (candidate, most) in enumerate(zip(counts, references.most, strict=True)):
        place, found = find(pack(candidate.text, candidate.gram), pack(most.text, most.gram))
        clipped = np.minimum(candidate.count[found], most.count[place[found]])
        np.add.at(correct[:, n], candidate.text[found], clipped)
    guess = np.maximum(lengths[:, None] - np.arange(MAX_N), 0)

    scorer = BleuScorer(n=MAX_N)
    scorer.ctest = [
        {"testlen": length, "reflen": reference_lengths, "guess": guessed, "correct": hits}
        for length, reference_lengths, guessed, hits in zip(
            lengths.tolist(), references.lengths_per_image(), guess.tolist(), correct.tolist(), strict=True
        )
    ]
    return scorer.compute_score(option="closest", verbose=0)
