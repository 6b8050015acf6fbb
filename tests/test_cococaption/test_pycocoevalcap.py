"""The scores are pycocoevalcap 1.2's: run once on varied text, odd captions among it, and compared number by number."""

import json
import os
import random
import re
from pathlib import Path

import pycocoevalcap.eval
import pytest
from pycocotools.coco import COCO

import cococaption.meteor
from cococaption import CaptionScorer
from cococaption.__main__ import main
from cococaption.tokenizer import find_java
from utils.files import write_json

NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"]
IMAGES = 540
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
    for image_id, caption in zip(captions, ODD_CAPTIONS, strict=False):
        captions[image_id] = caption
    return references, captions


def annotations(references: dict[int, list[str]]) -> dict:
    pairs = [(image_id, caption) for image_id, captions in references.items() for caption in captions]
    return {
        "info": {},
        "images": [{"id": image_id} for image_id in references],
        "annotations": [
            {"id": index, "image_id": image_id, "caption": caption} for index, (image_id, caption) in enumerate(pairs)
        ],
    }


class NoScores:
    """Stands where pycocoevalcap would download a parser, or load METEOR."""

    def compute_score(self, gts, res):
        return 0.0, [0.0] * len(gts)

    def method(self):
        return "left out"


def pycocoevalcap_scores(references: dict, captions: dict, left_out: tuple[str, ...] = ("Spice",)) -> tuple[dict, dict]:
    """(eval, imgToEval) by pycocoevalcap's own classes."""
    coco = COCO()
    coco.dataset = annotations(references)
    coco.createIndex()
    results = coco.loadRes([{"image_id": image_id, "caption": caption} for image_id, caption in captions.items()])
    with pytest.MonkeyPatch.context() as patch:
        for name in left_out:
            patch.setattr(pycocoevalcap.eval, name, NoScores)
        patch.setenv("PATH", str(Path(find_java()).parent), prepend=os.pathsep)
        evaluation = pycocoevalcap.eval.COCOEvalCap(coco, results)
        evaluation.evaluate()
    for scores in (evaluation.eval, *evaluation.imgToEval.values()):
        for name in left_out:
            del scores[name.upper()]
    return evaluation.eval, evaluation.imgToEval


@pytest.fixture(scope="module")
def invented():
    return invent()


@pytest.fixture(scope="module")
def expected(invented):
    return pycocoevalcap_scores(*invented)


@pytest.fixture(scope="module")
def annotation_file(invented, tmp_path_factory):
    path = tmp_path_factory.mktemp("annotations") / "annot_exp.json"
    write_json(path, annotations(invented[0]))
    return path


@pytest.fixture(scope="module")
def scorer(annotation_file, expected):
    # after `expected`, so that two METEORs do not load at once
    with CaptionScorer(annotation_file) as scorer:
        scorer.start()
        yield scorer


def assert_equal(scores: dict[str, float], reference: dict[str, float]) -> None:
    assert list(scores) == list(reference)
    assert scores == pytest.approx(reference, rel=0, abs=1e-9)


@pytest.mark.slow
def test_scorer_equals_pycocoevalcap(scorer, invented, expected):
    corpus, images = scorer.score(invented[1])
    assert list(corpus) == NAMES
    assert_equal(corpus, expected[0])
    assert list(images) == list(expected[1])
    for image_id, row in images.items():
        assert_equal({"image_id": image_id, **row}, expected[1][image_id])
    # the text is varied enough that every score has many values
    assert all(len({row[name] for row in images.values()}) > 100 for name in NAMES)


@pytest.mark.slow
def test_killed_meteor_is_restarted(scorer, invented, expected, monkeypatch):
    write, (victim,) = cococaption.meteor._Process._write, scorer._meteor._processes

    def killing_write(process, lines):
        monkeypatch.setattr(cococaption.meteor._Process, "_write", write)
        write(process, lines[:100])
        process.java.kill()
        write(process, lines[100:])

    monkeypatch.setattr(cococaption.meteor._Process, "_write", killing_write)
    with pytest.warns(UserWarning, match="died.*-9.*restarted"):
        corpus, images = scorer.score(dict(reversed(invented[1].items())))
    assert scorer._meteor._processes != [victim]
    assert_equal(corpus, expected[0])
    assert {image_id: row["METEOR"] for image_id, row in images.items()} == pytest.approx(
        {image_id: row["METEOR"] for image_id, row in expected[1].items()}, abs=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("images", [slice(0, 1), slice(1, None, 2)])
def test_part_of_the_images(annotation_file, invented, images):
    """Bleu, ROUGE-L and CIDEr of a part, against pycocoevalcap on an annotation file that holds only that part."""
    some = list(invented[0])[images]
    references, captions = ({image_id: part[image_id] for image_id in some} for part in invented)
    expected, expected_rows = pycocoevalcap_scores(references, captions, ("Spice", "Meteor"))
    with CaptionScorer(annotation_file, metrics=("bleu", "rouge", "cider")) as scorer:
        corpus, rows = scorer.score(captions)
        assert scorer._meteor._processes == []
    assert_equal(corpus, expected)
    assert list(rows) == some
    for image_id, row in rows.items():
        assert_equal({"image_id": image_id, **row}, expected_rows[image_id])


@pytest.mark.slow
def test_command(annotation_file, invented, expected, tmp_path, capsys):
    results, out, cache = tmp_path / "results.json", tmp_path / "new" / "scores.json", tmp_path / "cache"
    write_json(results, [{"image_id": image_id, "caption": caption} for image_id, caption in invented[1].items()])
    argv = ["--annotations", str(annotation_file), "--results", str(results), "--metrics", "bleu", "rouge", "cider"]
    main([*argv, "--json", str(out), "--cache_dir", str(cache)])
    scores = json.loads(out.read_text())
    assert list(scores) == ["eval", "imgToEval"]
    assert_equal(scores["eval"], {name: value for name, value in expected[0].items() if name != "METEOR"})
    assert list(scores["imgToEval"]) == [str(image_id) for image_id in expected[1]]
    assert scores["imgToEval"][str(FIRST_ID)]["image_id"] == FIRST_ID
    printed = capsys.readouterr().out
    assert f"CIDEr    {expected[0]['CIDEr']:.4f}" in printed and f"{IMAGES} of {IMAGES} annotated images" in printed
    assert list(tmp_path.glob("new/*")) == [out]
