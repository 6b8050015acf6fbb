"""The scores are pycocoevalcap 1.2's on varied text, odd captions among it; SPICE's mean, and a part of the images."""

import contextlib
import io
import math
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pycocoevalcap.eval
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocotools.coco import COCO

import cococaption.meteor
from cococaption import CaptionScorer
from cococaption.meteor import meteor_of_statistics
from cococaption.references import References
from cococaption.scorer import compute_scores
from cococaption.tokenizer import find_java
from utils.errors import InputError
from utils.files import write_json

NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"]
IMAGES = 240
FIRST_ID = 2**63 - 1 - IMAGES

WORDS = (
    "the a of and this painting sky looks like a woman man her his eyes color colours dark bright blue red green light "
    "trees water sea mountain feels sad happy peaceful calm scary lonely beautiful brush strokes face dress old young "
    "child flowers house reminds me makes because with in on is are was that it as could be very so much running run "
    "Monet Van Gogh's café naïve Ünïcödé"
).split()
ODD = (
    "no. No. 5 fig. Fig. 12 U.S. the U.S. Mr. etc. ... .... -- - ! ?! ; : , ' '' ` `` \" ( ) [ ] { } can't won't gonna it's "
    "they've '90s 'tis 1/2 3.14 1,000 $5 50% #1 (415) 555-1212 http://a.b/c?d=e you@me.org ||| || | a|||b <b> </b> "
    '<img alt="|||"> &amp; &lt; \\ / 😀 😀😀 👩‍🎨 e\u0301 日本語 Привет 1\xa01/2 \xa0 \u3000 \t \x00 \x1c \x85 \ufeff \ufffd \u200b \n \n\n'
).split(" ")
ODD_CAPTIONS = ["", " ", "\n", ".", "...", "|||", "a ||| b", "\t", "\x00", "😀", "a painting\r", "\r", "see no."]
ODD_CAPTIONS += ["5 apples", "1 1/2 cups", '<img alt="|||">', "SCORE ||| a ||| b", "EVAL", "a " * 200]


def annotations(references: dict[int, list[str]]) -> dict:
    """COCO's format, the annotations in another order than the images."""
    pairs = [(image, caption) for image in sorted(references) for caption in references[image]]
    notes = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(pairs)]
    return {"info": {}, "images": [{"id": image} for image in references], "annotations": notes}


# ---- all scores but SPICE --------------------------------------------------------------------------------------------


def sentence(rng: random.Random) -> str:
    if rng.random() < 0.06:
        return rng.choice(ODD_CAPTIONS)
    words = rng.choices(WORDS, k=rng.randint(1, 25))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        words.insert(rng.randrange(len(words) + 1), rng.choice(ODD))
    return " ".join(words) + rng.choice(("", ".", " no.", "!"))


def invent() -> tuple[dict[int, list[str]], dict[int, str]]:
    """References and one caption per image; many captions share words with a reference, some are one."""
    rng = random.Random(7)
    references, captions = {}, {}
    for image_id in range(FIRST_ID, FIRST_ID + IMAGES):
        references[image_id] = [sentence(rng) for _ in range(rng.choice((1, 2, 5, 6, 8)))]
        start = rng.choice(references[image_id]).split(" ")
        caption = " ".join(start[: rng.randint(0, len(start))]) + rng.choice(("", " " + sentence(rng)))
        captions[image_id] = re.sub(r"\r(?!\Z)", "", caption)
    captions |= dict(zip(captions, ODD_CAPTIONS, strict=False))
    # stems and synonyms; paraphrases
    references[image_id - 1], captions[image_id - 1] = ["the big trees look sad"], "a large tree looks sad"
    references[image_id], captions[image_id] = ["he passed away last year"], "he died the previous year"
    return references, captions


class NoScores:
    """Stands in SPICE's place, whose parser pycocoevalcap would download."""

    def compute_score(self, gts, res):
        return 0.0, [0.0] * len(gts)

    def method(self):
        return "left out"


def scores_of_pycocoevalcap(annotation_file: Path, captions: dict[int, str], monkeypatch) -> tuple[dict, dict]:
    """(eval, imgToEval) by pycocoevalcap's own classes."""
    coco = COCO(annotation_file)
    results = coco.loadRes([{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()])
    monkeypatch.setattr(pycocoevalcap.eval, "Spice", NoScores)
    monkeypatch.setenv("PATH", str(Path(find_java()).parent), prepend=os.pathsep)
    evaluation = pycocoevalcap.eval.COCOEvalCap(coco, results)
    evaluation.evaluate()
    for scores in (evaluation.eval, *evaluation.imgToEval.values()):
        del scores["SPICE"]
    return evaluation.eval, evaluation.imgToEval


def move_meteor(folder: Path, monkeypatch) -> None:
    """METEOR's jar in `folder`."""
    jar = cococaption.meteor._JAR
    shutil.copytree(jar.parent, folder, copy_function=os.symlink)
    (folder / jar.name).unlink()
    shutil.copy(jar, folder)  # of a link, Java would take the folder that it leads to
    arguments = [str(folder / jar.name) if word == str(jar) else word for word in cococaption.meteor._ARGUMENTS]
    monkeypatch.setattr(cococaption.meteor, "_JAR", folder / jar.name)
    monkeypatch.setattr(cococaption.meteor, "_ARGUMENTS", arguments)


@pytest.mark.slow
def test_equal_to_pycocoevalcap(tmp_path, monkeypatch):
    """METEOR in a folder with a space and an umlaut, where its jar by itself does not find the table of paraphrases."""
    references, captions = invent()
    write_json(tmp_path / "a.json", annotations(references))
    expected, expected_images = scores_of_pycocoevalcap(tmp_path / "a.json", captions, monkeypatch)
    move_meteor(tmp_path / "mit Ümlaut", monkeypatch)
    with CaptionScorer(tmp_path / "a.json") as scorer:
        corpus, images, sums = scorer.score_with_sums(dict(reversed(captions.items())))
    assert list(corpus) == list(expected) == NAMES and list(images) == list(expected_images)
    assert corpus == pytest.approx(expected, rel=0, abs=1e-9)
    for image_id, row in images.items():
        assert {"image_id": image_id, **row} == pytest.approx(expected_images[image_id], rel=0, abs=1e-9)
    # the text is varied enough that every score has many values
    assert all(len({row[name] for row in images.values()}) > 100 for name in NAMES)

    rows = np.array(list(sums["meteor"].values()))
    matches = rows[:, 4:20].reshape(-1, 4, 4)
    assert matches.any(axis=(0, 2)).all(), "a stage of METEOR that matched nothing"
    assert meteor_of_statistics(rows) == pytest.approx([row["METEOR"] for row in images.values()], abs=1e-12)
    assert meteor_of_statistics(rows.sum(axis=0)) == pytest.approx(corpus["METEOR"], abs=1e-12)


# few words, so that n-grams repeat; a no-break space joins two words for ROUGE-L and parts them for the others
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "x\xa0y", "é", "\x1f"]), max_size=12).map(" ".join)
IMAGE = st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(IMAGE, min_size=1, max_size=6))
def test_tokenised_texts_have_the_scores_of_pycocoevalcap(images):
    """BLEU, ROUGE-L and CIDEr, without Java."""
    candidates, texts = [text for text, _ in images], [texts for _, texts in images]
    assume(any(text.split() for part in texts for text in part))
    references = References([text for part in texts for text in part], np.array([len(part) for part in texts]))
    corpus, of_images, _ = compute_scores(references, candidates, ["bleu", "rouge", "cider"])
    gts, res = dict(enumerate(texts)), {index: [text] for index, text in enumerate(candidates)}
    with contextlib.redirect_stdout(io.StringIO()):
        scores, values = Bleu(4).compute_score(gts, res)
    for scorer in (Rouge(), Cider()):
        score, row = scorer.compute_score(gts, res)
        scores, values = [*scores, score], [*values, row]
    for name, score, row in zip([*NAMES[:4], *NAMES[5:]], scores, values, strict=True):
        assert corpus[name] == pytest.approx(score, rel=0, abs=1e-9)
        assert of_images[name] == pytest.approx(list(row), rel=0, abs=1e-9)


# ---- SPICE, and a part of the images ---------------------------------------------------------------------------------

REFERENCES = {
    3: ["a red tree by the sea", "a tree"],
    1: ["the sky is calm"],
    2: ["a dark dog runs", "dog"],
    4: ["his eyes look at the sea"],
}
CAPTIONS = {1: "the sky", 4: "the eyes look", 2: "a dark dog", 3: "a red tree by the sea"}


@pytest.fixture
def scorer(tmp_path, monkeypatch):
    """A scorer without METEOR whose tokens are the words, with a SPICE that counts letters."""

    class Spice:
        def compute_score(self, references, candidates):
            scores = [len(text) / 100 if text != "?" else math.nan for (text,) in candidates.values()]
            return math.nan, [{"All": {"f": score, "pr": 0.9}, "Object": {"f": 0.7}} for score in scores]

    monkeypatch.setattr("cococaption.scorer.tokenize", list)
    monkeypatch.setattr("cococaption.references.tokenize", list)
    monkeypatch.setattr("cococaption.spice._MODELS", ())
    monkeypatch.setattr("pycocoevalcap.spice.spice.Spice", Spice)
    write_json(tmp_path / "a.json", annotations(REFERENCES))
    with CaptionScorer(tmp_path / "a.json", ("spice", "cider", "rouge", "bleu")) as made:
        yield made


def test_names_and_order(scorer):
    """Images in the order of the annotation file, whatever that of the captions; SPICE of an image is its F."""
    corpus, images, sums = scorer.score_with_sums(CAPTIONS)
    names = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "SPICE"]
    assert list(corpus) == names and all(list(row) == names for row in images.values())
    assert {image: row["SPICE"] for image, row in images.items()} == {3: 0.21, 1: 0.07, 2: 0.1, 4: 0.13}
    assert list(images) == list(sums["bleu"]) == [3, 1, 2, 4]
    assert corpus["SPICE"] == pytest.approx((0.21 + 0.07 + 0.1 + 0.13) / 4)
    assert sums["bleu"][1] == [2, 1, 0, 0, 2, 1, 0, 0, 2, 4]


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


def test_references_without_a_word_are_refused():
    with pytest.raises(InputError, match="contain no words"):
        compute_scores(References(["", ""], np.array([1, 1])), ["a", "b"], ["cider"])
