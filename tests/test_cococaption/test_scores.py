"""Scores without METEOR's Java: n-gram counts, BLEU, ROUGE-L and CIDEr of token strings, and a scorer's names and order."""

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

from cococaption import CaptionScorer
from cococaption.bleu import bleu, bleu_counts, bleu_of_counts
from cococaption.cider import cider
from cococaption.meteor import Meteor, meteor_of_statistics
from cococaption.references import EMPTY, References, count_ngrams
from cococaption.rouge import rouge_l
from utils.errors import InputError
from utils.files import write_json

# few words, so that n-grams repeat; a no-break space joins two words for ROUGE-L and parts them for the others
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "x\xa0y", "é", "\x1f"]), max_size=12).map(" ".join)
IMAGE = st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4))


@settings(max_examples=100, deadline=None, derandomize=True)
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


# ---- scores of sums --------------------------------------------------------------------------------------------------

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


# ---- the scorer ------------------------------------------------------------------------------------------------------

REFERENCES = {
    3: ["a red tree by the sea", "a tree"],
    1: ["the sky is calm"],
    2: ["a dark dog runs", "dog"],
    4: ["his eyes look at the sea"],
}
CAPTIONS = {1: "the sky", 4: "the eyes look", 2: "a dark dog", 3: "a red tree by the sea"}
NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE"]


@pytest.fixture
def scorer(tmp_path, monkeypatch):
    """A scorer whose tokens are the words, with a METEOR and a SPICE that count letters."""
    pairs = [(image, caption) for image, captions in REFERENCES.items() for caption in captions]
    notes = [{"id": n, "image_id": image, "caption": caption} for n, (image, caption) in enumerate(pairs)]
    write_json(tmp_path / "a.json", {"images": [{"id": image} for image in REFERENCES], "annotations": notes})

    def prepare(captions, cache_dir=None) -> References:
        return References([text for texts in captions for text in texts], np.array([len(texts) for texts in captions]))

    def spice(candidates, references):
        table = [{"All": {"f": len(text) / 100, "pr": 0.9, "re": 0.1}, "Object": {"f": 0.7}} for text in candidates]
        return 0.25, table

    def meteor(_, candidates, references):
        return 0.5, [len(texts[0]) for texts in references], np.array([[len(text), 7] for text in candidates])

    for name, double in {
        "find_java": lambda: "java",
        "check_models": lambda: None,
        "tokenize": list,
        "prepare_references": prepare,
        "spice": spice,
        "Meteor.score": meteor,
        "Meteor.start": lambda _: None,
    }.items():
        monkeypatch.setattr(f"cococaption.scorer.{name}", double)
    with CaptionScorer(tmp_path / "a.json", ("spice", "cider", "rouge", "meteor", "bleu")) as made:
        yield made


def test_names_and_order(scorer):
    """Images in the order of the annotation file, whatever that of the captions; SPICE of an image is its F."""
    corpus, images, sums = scorer.score_with_sums(CAPTIONS)
    assert list(corpus) == NAMES and corpus["SPICE"] == 0.25 and corpus["METEOR"] == 0.5
    assert list(images) == [3, 1, 2, 4] and all(list(row) == NAMES for row in images.values())
    assert [row["SPICE"] for row in images.values()] == [0.21, 0.07, 0.1, 0.13]
    assert [row["METEOR"] for row in images.values()] == [21, 15, 15, 24]
    assert images[3]["Bleu_4"] == pytest.approx(1) and images[3]["ROUGE_L"] == pytest.approx(1)
    # all their words are right; two of four are written, and three where four are the closest length
    assert images[1]["Bleu_1"] == pytest.approx(np.exp(1 - 4 / 2), rel=1e-5)
    assert images[2]["Bleu_1"] == pytest.approx(np.exp(1 - 4 / 3), rel=1e-5)
    for name in ("ROUGE_L", "CIDEr"):
        assert corpus[name] == pytest.approx(np.mean([row[name] for row in images.values()])) and corpus[name] > 0
    assert sums["meteor"] == {3: [21, 7], 1: [7, 7], 2: [10, 7], 4: [13, 7]}
    assert list(sums["bleu"]) == [3, 1, 2, 4] and sums["bleu"][1] == [2, 1, 0, 0, 2, 1, 0, 0, 2, 4]


def test_a_part_of_the_images_is_scored_by_its_own_references(scorer):
    """Exactly half of them, then the other half, then all."""
    whole = scorer.score(CAPTIONS)[1]
    for half in ([3, 2], [1, 4]):
        _, images = scorer.score({image: CAPTIONS[image] for image in reversed(half)})
        assert list(images) == half
        for image in half:
            assert images[image]["Bleu_2"] == pytest.approx(whole[image]["Bleu_2"])
            assert images[image]["ROUGE_L"] == pytest.approx(whole[image]["ROUGE_L"])
            assert images[image]["CIDEr"] != pytest.approx(whole[image]["CIDEr"])  # other document frequencies
        assert scorer.prepared(half[::-1]).texts == [REFERENCES[image] for image in half]
    assert scorer.score(CAPTIONS)[1] == whole
