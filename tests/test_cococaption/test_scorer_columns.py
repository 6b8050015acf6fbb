"""Which number stands under which name: SPICE's F-measure, and the order of scores and images, without Java."""

import numpy as np
import pytest

import cococaption.scorer
from cococaption import CaptionScorer
from cococaption.references import References
from utils.files import write_json

REFERENCES = {3: ["a red tree by the sea", "a tree"], 1: ["the sky is calm"], 2: ["a dark dog runs", "dog"]}


@pytest.fixture
def scorer(tmp_path, monkeypatch):
    """A scorer whose tokens are the words, with METEOR and SPICE that answer what the caption's number says."""
    pairs = [(image, caption) for image, captions in REFERENCES.items() for caption in captions]
    notes = [{"id": n, "image_id": image, "caption": caption} for n, (image, caption) in enumerate(pairs)]
    write_json(tmp_path / "a.json", {"images": [{"id": image} for image in REFERENCES], "annotations": notes})
    monkeypatch.setattr(cococaption.scorer, "find_java", lambda: "java")
    monkeypatch.setattr(cococaption.scorer, "check_models", lambda: None)
    monkeypatch.setattr(cococaption.scorer, "tokenize", lambda captions: list(captions))

    def prepare(captions, cache_dir=None) -> References:
        return References([text for texts in captions for text in texts], np.array([len(texts) for texts in captions]))

    def spice(candidates, references):
        table = [{"All": {"f": len(text) / 100, "pr": 0.9, "re": 0.1}, "Object": {"f": 0.7}} for text in candidates]
        return 0.25, table

    monkeypatch.setattr(cococaption.scorer, "prepare_references", prepare)
    monkeypatch.setattr(cococaption.scorer, "spice", spice)
    with CaptionScorer(tmp_path / "a.json", ("bleu", "rouge", "cider", "spice")) as made:
        yield made


def test_names_and_images(scorer):
    """Images in the order of the annotation file, whatever that of the captions; SPICE of an image is its F."""
    captions = {1: "the sky", 2: "a dark dog", 3: "a red tree by the sea"}
    corpus, images = scorer.score(captions)
    assert list(corpus) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "SPICE"]
    assert list(images) == [3, 1, 2] and corpus["SPICE"] == 0.25
    assert [row["SPICE"] for row in images.values()] == [0.21, 0.07, 0.1]
    assert images[3]["Bleu_4"] == pytest.approx(1) and images[3]["ROUGE_L"] == pytest.approx(1)
    # all their words are right; two of four are written, and three where four are the closest length
    assert images[1]["Bleu_1"] == pytest.approx(np.exp(1 - 4 / 2), rel=1e-5)
    assert images[2]["Bleu_1"] == pytest.approx(np.exp(1 - 4 / 3), rel=1e-5)
    assert corpus["ROUGE_L"] == pytest.approx(np.mean([row["ROUGE_L"] for row in images.values()]))
    assert corpus["CIDEr"] == pytest.approx(np.mean([row["CIDEr"] for row in images.values()]))


def test_a_part_of_the_images_is_scored_by_its_own_references(scorer):
    whole = scorer.score({1: "the sky", 2: "a dark dog", 3: "a red tree by the sea"})[1]
    corpus, images = scorer.score({2: "a dark dog", 3: "a red tree by the sea"})
    assert list(images) == [3, 2]
    assert images[2]["Bleu_2"] == pytest.approx(whole[2]["Bleu_2"])
    assert images[2]["CIDEr"] != pytest.approx(whole[2]["CIDEr"])  # another number of images, other frequencies
