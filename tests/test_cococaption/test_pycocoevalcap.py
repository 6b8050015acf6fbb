"""The scores are pycocoevalcap 1.2's: run once on varied text, odd captions among it, and compared number by number."""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pycocoevalcap.eval
import pytest
from pycocotools.coco import COCO

import cococaption.meteor
from cococaption import CaptionScorer
from cococaption.meteor import meteor_of_statistics
from cococaption.tokenizer import find_java
from tests.test_cococaption.test_scores import annotations
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
        captions[image_id] = " ".join(start[: rng.randint(0, len(start))]) + rng.choice(("", " " + sentence(rng)))
        if re.search(r"\r(?!\Z)", captions[image_id]):
            captions[image_id] = captions[image_id].replace("\r", "")
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


@pytest.fixture(scope="module")
def invented():
    return invent()


@pytest.fixture(scope="module")
def expected(invented) -> tuple[dict, dict]:
    """(eval, imgToEval) by pycocoevalcap's own classes."""
    references, captions = invented
    coco = COCO()
    coco.dataset = {"info": {}} | annotations(references)
    coco.createIndex()
    results = coco.loadRes([{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pycocoevalcap.eval, "Spice", NoScores)
        patch.setenv("PATH", str(Path(find_java()).parent), prepend=os.pathsep)
        evaluation = pycocoevalcap.eval.COCOEvalCap(coco, results)
        evaluation.evaluate()
    for scores in (evaluation.eval, *evaluation.imgToEval.values()):
        del scores["SPICE"]
    return evaluation.eval, evaluation.imgToEval


@pytest.fixture(scope="module")
def annotation_file(invented, tmp_path_factory):
    path = tmp_path_factory.mktemp("annotations") / "annot_exp.json"
    write_json(path, annotations(invented[0]))
    return path


@pytest.fixture(scope="module")
def jar_in_odd_folder(tmp_path_factory):
    """METEOR in a folder with a space and an umlaut: by itself its jar looks for the table of paraphrases under a name that
    it has quoted twice."""
    jar, folder = cococaption.meteor._JAR, tmp_path_factory.mktemp("jar") / "mit Ümlaut"
    shutil.copytree(jar.parent, folder, copy_function=os.symlink)
    (folder / jar.name).unlink()
    shutil.copy(jar, folder)  # of a link, Java would take the folder that it leads to
    arguments = [str(folder / jar.name) if word == str(jar) else word for word in cococaption.meteor._ARGUMENTS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cococaption.meteor, "_JAR", folder / jar.name)
        patch.setattr(cococaption.meteor, "_ARGUMENTS", arguments)
        yield


@pytest.fixture(scope="module")
def scorer(annotation_file, expected, jar_in_odd_folder):
    # after `expected`, so that two METEORs do not load at once
    with CaptionScorer(annotation_file) as scorer:
        scorer.start()
        yield scorer


def assert_equal(scores: dict[str, float], reference: dict[str, float]) -> None:
    assert list(scores) == list(reference)
    assert scores == pytest.approx(reference, rel=0, abs=1e-9)


@pytest.mark.slow
def test_scorer_equals_pycocoevalcap(scorer, invented, expected):
    corpus, images, sums = scorer.score_with_sums(dict(reversed(invented[1].items())))
    assert list(corpus) == NAMES
    assert_equal(corpus, expected[0])
    assert list(images) == list(expected[1])
    for image_id, row in images.items():
        assert_equal({"image_id": image_id, **row}, expected[1][image_id])
    # the text is varied enough that every score has many values
    assert all(len({row[name] for row in images.values()}) > 100 for name in NAMES)

    rows = np.array(list(sums["meteor"].values()))
    matches = rows[:, 4:20].reshape(-1, 4, 4)
    assert matches.any(axis=(0, 2)).all(), "a stage of METEOR that matched nothing"
    assert meteor_of_statistics(rows) == pytest.approx([row["METEOR"] for row in images.values()], abs=1e-12)
    assert meteor_of_statistics(rows.sum(axis=0)) == pytest.approx(corpus["METEOR"], abs=1e-12)
