"""Scores without METEOR's Java: n-gram counts, BLEU, ROUGE-L and CIDEr of token strings, and a scorer's names and order."""

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from cococaption import CaptionScorer
from cococaption.bleu import bleu_counts, bleu_of_counts
from cococaption.cider import cider
from cococaption.references import References, count_ngrams
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
    rows = bleu_counts(references, counts, lengths)
    assert bleu_of_counts(rows.sum(axis=0)) == pytest.approx(np.array(expected[0]), rel=0, abs=1e-12)
    assert bleu_of_counts(rows).T == pytest.approx(np.array(expected[1]), rel=0, abs=1e-12)

    rouge = [rouge_l(text, texts) for text, texts in images]
    assert rouge == pytest.approx(Rouge().compute_score(gts, res)[1], rel=0, abs=1e-12)

    if any(text.split() for part in texts for text in part):
        assert cider(references, counts, lengths) == pytest.approx(Cider().compute_score(gts, res)[1], rel=0, abs=1e-9)
    else:
        with pytest.raises(InputError, match="contain no words"):  # pycocoevalcap: a ValueError
            cider(references, counts, lengths)


# ---- the scorer ------------------------------------------------------------------------------------------------------

REFERENCES = {
    3: ["a red tree by the sea", "a tree"],
    1: ["the sky is calm"],
    2: ["a dark dog runs", "dog"],
    4: ["his eyes look at the sea"],
}
CAPTIONS = {1: "the sky", 4: "the eyes look", 2: "a dark dog", 3: "a red tree by the sea"}
NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE"]


def annotations(references: dict[int, list[str]]) -> dict:
    pairs = [(image, caption) for image, captions in references.items() for caption in captions]
    notes = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(pairs)]
    return {"images": [{"id": image} for image in references], "annotations": notes}


@pytest.fixture
def scorer(tmp_path, monkeypatch):
    """A scorer whose tokens are the words, with a METEOR and a SPICE that count letters."""
    write_json(tmp_path / "a.json", annotations(REFERENCES))

    def prepare(captions, cache_dir=None) -> References:
        return References([text for texts in captions for text in texts], np.array([len(texts) for texts in captions]))

    class Spice:
        def compute_score(self, references, candidates):
            assert list(references) == list(candidates) and all(
                isinstance(texts, list) for texts in references.values()
            )
            scores = [len(text) / 100 if text != "?" else math.nan for (text,) in candidates.values()]
            return math.nan, [{"All": {"f": score, "pr": 0.9}, "Object": {"f": 0.7}} for score in scores]

    def meteor(_, candidates, references):
        return 0.5, [len(texts[0]) for texts in references], np.array([[len(text), 7] for text in candidates])

    for name, double in {
        "cococaption.scorer.find_java": lambda: "java",
        "cococaption.scorer.check_models": lambda: None,
        "cococaption.scorer.tokenize": list,
        "cococaption.scorer.prepare_references": prepare,
        "cococaption.scorer.Meteor.score": meteor,
        "cococaption.scorer.Meteor.start": lambda _: None,
        "cococaption.spice.check_models": lambda: None,
        "pycocoevalcap.spice.spice.Spice": Spice,
    }.items():
        monkeypatch.setattr(name, double)
    with CaptionScorer(tmp_path / "a.json", ("spice", "cider", "rouge", "meteor", "bleu"), meteor_jvms=3) as made:
        assert made._meteor._jvms == 3
        yield made


def test_names_and_order(scorer):
    """Images in the order of the annotation file, whatever that of the captions; SPICE of an image is its F."""
    corpus, images, sums = scorer.score_with_sums(CAPTIONS)
    assert list(corpus) == NAMES and corpus["METEOR"] == 0.5
    assert corpus["SPICE"] == pytest.approx((0.21 + 0.07 + 0.1 + 0.13) / 4)
    assert list(images) == [3, 1, 2, 4] and all(list(row) == NAMES for row in images.values())
    assert [row["SPICE"] for row in images.values()] == [0.21, 0.07, 0.1, 0.13]
    assert [row["METEOR"] for row in images.values()] == [21, 15, 15, 24]
    for name in ("ROUGE_L", "CIDEr"):
        assert corpus[name] == pytest.approx(np.mean([row[name] for row in images.values()])) and corpus[name] > 0
    assert sums["meteor"] == {3: [21, 7], 1: [7, 7], 2: [10, 7], 4: [13, 7]}
    assert list(sums["bleu"]) == [3, 1, 2, 4] and sums["bleu"][1] == [2, 1, 0, 0, 2, 1, 0, 0, 2, 4]


def test_what_spice_cannot_parse_is_left_out_of_its_mean(scorer):
    corpus, images = scorer.score(CAPTIONS | {4: "?", 1: "?"})
    assert corpus["SPICE"] == pytest.approx((0.21 + 0.1) / 2) and math.isnan(images[4]["SPICE"])
    assert scorer.score(dict.fromkeys(CAPTIONS, "?"))[0]["SPICE"] == 0


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
