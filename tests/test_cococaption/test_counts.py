"""BLEU, ROUGE-L and CIDEr of token strings, without Java, and corpus scores from the counts of single images."""

import contextlib
import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from cococaption.bleu import bleu, bleu_counts, bleu_of_counts
from cococaption.cider import cider
from cococaption.meteor import Meteor, meteor_of_statistics
from cococaption.references import EMPTY, References, count_ngrams
from cococaption.rouge import rouge_l
from utils.errors import InputError

# few words, so that n-grams repeat; a no-break space joins two words for ROUGE-L and parts them for the others
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "x\xa0y", "é", "\x1f"]), max_size=12).map(" ".join)
IMAGE = st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4))


@settings(max_examples=150, deadline=None)
@given(st.lists(IMAGE, min_size=1, max_size=6))
def test_equal_to_pycocoevalcap(images):
    candidates, texts = [text for text, _ in images], [texts for _, texts in images]
    references = References([text for part in texts for text in part], np.array([len(part) for part in texts]))
    counts, lengths, _ = count_ngrams(candidates, references.numbering)
    gts, res = dict(enumerate(texts)), {index: [text] for index, text in enumerate(candidates)}

    with contextlib.redirect_stdout(io.StringIO()):
        expected = Bleu(4).compute_score(gts, res)
    corpus, per_image = bleu(bleu_counts(references, counts, lengths))
    assert corpus == pytest.approx(expected[0], rel=0, abs=1e-12)
    assert np.array(per_image) == pytest.approx(np.array(expected[1]), rel=0, abs=1e-12)

    rouge = [rouge_l(text, texts) for text, texts in images]
    assert rouge == pytest.approx(Rouge().compute_score(gts, res)[1], rel=0, abs=1e-12)

    if any(text.split() for part in texts for text in part):
        assert cider(references, counts, lengths) == pytest.approx(Cider().compute_score(gts, res)[1], rel=0, abs=1e-9)
    else:
        with pytest.raises(InputError, match="contain no words"):  # pycocoevalcap: a ValueError
            cider(references, counts, lengths)


def test_counts_of_later_texts_use_the_numbers_of_the_first():
    first, lengths, numbering = count_ngrams(["a b a b", ""], EMPTY)
    assert lengths.tolist() == [4, 0]
    assert [counts.count.tolist() for counts in first] == [[2, 2], [2, 1], [1, 1], [1]]
    assert [numbering.size(n) for n in (1, 2, 3, 4)] == [2, 2, 2, 1]
    later, _, _ = count_ngrams(["b a b z z"], numbering)
    # a, b, then z with a number of its own; "b a b" known, "a b z" and "b z z" not
    assert later[0].gram.tolist() == [0, 1, 2] and later[0].count.tolist() == [1, 2, 2]
    assert later[2].gram[0] < 2 <= later[2].gram[1] < later[2].gram[2]


WORDS = "the sky is dark and a big tree trees looks look sad sadness it makes me feel calm quietly by sea ocean".split()


def sentences(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 14))) for _ in range(number)]


def test_bleu_of_summed_counts_is_the_corpus_bleu():
    """Of all images and of each alone, with an empty candidate and one that repeats a reference's words too often."""
    references = References(sentences(60, 0), np.array([1, 2, 3, 4, 5] * 4))
    counts, lengths, _ = count_ngrams(["", "the the the the", *sentences(18, 1)], references.numbering)
    rows = bleu_counts(references, counts, lengths)
    corpus, per_image = bleu(rows)
    assert bleu_of_counts(rows.sum(axis=0)) == pytest.approx(corpus, abs=1e-12) and corpus[3] > 0
    assert bleu_of_counts(rows) == pytest.approx(np.array(per_image).T, abs=1e-12)


@pytest.mark.slow
def test_meteor_of_summed_statistics_is_what_the_jar_says():
    """Stems, synonyms, paraphrases, a whole match and an empty candidate; of images alone, of all, and of images drawn twice."""
    references = [sentences(n % 5 + 1, n) for n in range(30)]
    candidates = [*sentences(27, 99), "", "zzz", references[29][0]]
    drawn = np.random.default_rng(0).integers(30, size=40)
    with contextlib.closing(Meteor()) as meteor:
        corpus, scores, rows = meteor.score(candidates, references)
        again = meteor.score([candidates[i] for i in drawn], [references[i] for i in drawn])[0]
    assert rows.shape == (30, 23) and scores[29] == pytest.approx(1) and scores[28] == 0
    assert meteor_of_statistics(rows) == pytest.approx(scores, abs=1e-12)
    assert meteor_of_statistics(rows.sum(axis=0)) == pytest.approx(corpus, abs=1e-12)
    assert meteor_of_statistics(rows[drawn].sum(axis=0)) == pytest.approx(again, abs=1e-12)
