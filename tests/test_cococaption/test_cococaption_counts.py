"""BLEU, ROUGE-L and CIDEr of token strings, without Java: whatever the tokens, pycocoevalcap's values."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from cococaption.bleu import bleu
from cococaption.cider import cider
from cococaption.references import EMPTY, References, count_ngrams
from cococaption.rouge import rouge_l
from utils.errors import InputError

# few words, so that n-grams repeat; a no-break space joins two words for ROUGE-L and parts them for the others
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "x\xa0y", "é", "\x1f"]), max_size=12).map(" ".join)
IMAGE = st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4))


@settings(max_examples=150, deadline=None)
@given(st.lists(IMAGE, min_size=1, max_size=6))
def test_equal_to_pycocoevalcap(images):
    candidates, of_images = [text for text, _ in images], [texts for _, texts in images]
    references = References([text for texts in of_images for text in texts], np.array([len(t) for t in of_images]))
    counts, lengths, _ = count_ngrams(candidates, references.numbering)
    gts, res = dict(enumerate(of_images)), {index: [text] for index, text in enumerate(candidates)}

    with contextlib.redirect_stdout(io.StringIO()):
        expected = Bleu(4).compute_score(gts, res)
    corpus, per_image = bleu(references, counts, lengths)
    assert corpus == pytest.approx(expected[0], rel=0, abs=1e-12)
    assert np.array(per_image) == pytest.approx(np.array(expected[1]), rel=0, abs=1e-12)

    rouge = [rouge_l(text, texts) for text, texts in images]
    assert rouge == pytest.approx(Rouge().compute_score(gts, res)[1], rel=0, abs=1e-12)

    if any(text.split() for texts in of_images for text in texts):
        assert cider(references, counts, lengths) == pytest.approx(Cider().compute_score(gts, res)[1], rel=0, abs=1e-9)
    else:
        with pytest.raises(ValueError, match="empty"):
            Cider().compute_score(gts, res)
        with pytest.raises(InputError, match="hold no word"):
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
