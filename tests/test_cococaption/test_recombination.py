"""Corpus scores from the counts of single images: the same formula as the scorers', on any selection of images."""

import random

import numpy as np
import pytest

from cococaption.bleu import bleu, bleu_counts, bleu_of_counts
from cococaption.meteor import Meteor, meteor_of_statistics
from cococaption.references import References, count_ngrams

WORDS = "the sky is dark and a big tree trees looks look sad sadness it makes me feel calm quietly by sea ocean".split()


def texts(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 14))) for _ in range(number)]


def test_bleu_of_summed_counts_is_the_corpus_bleu():
    """Of all images and of each alone, with an empty candidate and one that repeats a reference's words too often."""
    references, per_image = texts(60, 0), np.array([1, 2, 3, 4, 5] * 4)
    candidates = ["", "the the the the", *texts(18, 1)]
    prepared = References(references, per_image)
    counts, lengths, _ = count_ngrams(candidates, prepared.numbering)
    rows = bleu_counts(prepared, counts, lengths)
    corpus, of_images = bleu(prepared, counts, lengths)
    assert bleu_of_counts(rows.sum(axis=0)) == pytest.approx(corpus, abs=1e-12) and corpus[3] > 0
    assert bleu_of_counts(rows) == pytest.approx(np.array(of_images).T, abs=1e-12)


@pytest.mark.slow
def test_meteor_of_summed_statistics_is_what_the_jar_says():
    """Stems, synonyms, paraphrases, a whole match and an empty candidate; of images alone, of all, and of images drawn twice."""
    references = [texts(n % 5 + 1, n) for n in range(30)]
    candidates = [*texts(27, 99), "", "zzz", references[29][0]]
    drawn = np.random.default_rng(0).integers(30, size=40)
    meteor = Meteor()
    try:
        corpus, scores, rows = meteor.score_with_statistics(candidates, references)
        again = meteor.score([candidates[i] for i in drawn], [references[i] for i in drawn])[0]
    finally:
        meteor.close()
    assert rows.shape == (30, 23) and scores[29] == pytest.approx(1) and scores[28] == 0
    assert meteor_of_statistics(rows) == pytest.approx(scores, abs=1e-12)
    assert meteor_of_statistics(rows.sum(axis=0)) == pytest.approx(corpus, abs=1e-12)
    assert meteor_of_statistics(rows[drawn].sum(axis=0)) == pytest.approx(again, abs=1e-12)
