"""Annotation and result files, the cache of tokenised references, and what is refused with one line."""

import errno
import json
import math
from unittest.mock import Mock

import pytest

import cococaption.references
from cococaption import CaptionScorer, read_annotations, read_results
from cococaption.__main__ import main
from cococaption.references import prepare_references
from cococaption.tokenizer import caption_problem, printable
from tests.bad_input import ANNOTATIONS, BRACKETS, check_refused, check_refused_in_shell
from utils.errors import InputError
from utils.files import write_json

IMAGES = [{"id": 1}, {"id": 2}]
NOTES = [{"image_id": 1, "caption": "a red tree"}, {"image_id": 2, "caption": "the sky is calm"}]


def annotations(images: list, notes: list) -> dict:
    return {"images": images, "annotations": notes}


ANNOTATIONS_REFUSED = [
    ([], "a JSON object"),
    (annotations([], NOTES), "'images' is missing or empty"),
    (annotations([*IMAGES, {"id": 1}], NOTES), r"images\[2\]: duplicate image id 1;"),
    (annotations([{"id": 2**63}], NOTES), r"images\[0\]: id: '9223372036854775808' is not a 64-bit integer"),
    (annotations(IMAGES[:1], NOTES), r"annotations\[1\]: image_id 2 is not in images"),
    (annotations([*IMAGES, {"id": 3}], NOTES), "image 3 has no annotation"),
    (annotations(IMAGES, [{"image_id": 1}]), r"annotations\[0\]: has no 'caption'"),
    (annotations(IMAGES, ["a red tree"]), r"annotations\[0\]: is not a JSON object"),
]
RESULTS_REFUSED = [
    ({}, "a JSON list"),
    ([], "at least one record"),
    ([NOTES[0], NOTES[0]], "record 1: a second caption for image 1"),
    ([{"image_id": "1", "caption": "a"}], "record 0: image_id: '1' is not a 64-bit integer"),
    ([{"image_id": 1, "caption": 5}], "record 0: caption: the caption is int"),
    ([{"image_id": 1, "caption": "a\u2028b"}], r"record 0: caption: .*U\+2028; replace it by a space"),
    ([{"image_id": 1, "caption": "\ud800"}], "record 0: caption: .*half a character.*repair"),
]


@pytest.mark.parametrize(
    ("read", "data", "message"),
    [(read_annotations, *case) for case in ANNOTATIONS_REFUSED] + [(read_results, *case) for case in RESULTS_REFUSED],
)
def test_refused(tmp_path, read, data, message):
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path}/a.json: ") and str(error.value).isprintable()


def test_captions():
    """A line separator inside a caption would assign later captions to other images; a final "\\r" would not."""
    good = ["", "a\nb", "\n", "a|||b", "😀", "a\tb\x00c", "a\x85b", "a\xa0b", "ends in\r", "\r"]
    bad = ["a\rb", "a\r\n", "a\r\nb", "\r\r", "a\x0bb", "a\x0c", "\u2028", "a\u2029b", "\ud83d"]
    assert [caption_problem(caption) for caption in good] == [None] * len(good)
    assert all(map(caption_problem, [*bad, 1]))
    assert not any(caption_problem(printable(caption)) for caption in bad) and printable("é\ra") == "é a"


def test_score_refuses_before_any_java(tmp_path):
    write_json(tmp_path / "a.json", annotations(IMAGES, NOTES))
    with CaptionScorer(tmp_path / "a.json") as scorer:
        for captions, problem in [({}, "no caption to score"), ({1: "a\rb"}, r"caption of image 1: .*U\+000D")]:
            with pytest.raises(InputError, match=problem):
                scorer.score(captions)
        assert scorer._meteor._processes == []


def test_references_on_disk(tmp_path, monkeypatch, capsys):
    """Tokenised once for the same captions in the same order; again where the file is damaged, or another's."""
    captions, other = [["A red tree.", "no."], ["5 calm 😀 seas"]], [["no.", "A red tree."], ["5 calm 😀 seas"]]
    expected, cache = [["a red tree", "no."], ["5 calm seas"]], tmp_path / "cache"
    calls, tokenize = [], cococaption.references.tokenize
    monkeypatch.setattr(cococaption.references, "tokenize", lambda texts: calls.append(len(texts)) or tokenize(texts))

    for _ in range(2):
        assert prepare_references(captions, cache).texts == expected and calls == [3]
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    assert prepare_references(other, cache).texts == [["no", "a red tree"], ["5 calm seas"]]
    (other_file,) = set(cache.iterdir()) - {file}
    assert capsys.readouterr().out == ""
    damages = [whole[:-30], whole.replace(b"red", b"bed"), b"[]", other_file.read_bytes()]
    for number, damaged in enumerate(damages, start=3):
        file.write_bytes(damaged)
        assert prepare_references(captions, cache).texts == expected
        assert calls == [3] * number and file.read_bytes() == whole
        assert capsys.readouterr().out == f"{file}: damaged; recreating it\n"
    assert prepare_references([captions[0] + captions[1]], cache).texts == [sum(expected, [])]  # of one image

    for error in (OSError(errno.ENOSPC, "No space left on device"), InputError("file/cache: is not a folder")):
        monkeypatch.setattr(cococaption.references, "write_json", Mock(side_effect=error))
        with pytest.warns(UserWarning, match="not cached"):
            assert prepare_references([["a tree"]], cache).texts == [["a tree"]]


def test_spice_without_its_models(tmp_path, monkeypatch):
    monkeypatch.setattr("cococaption.spice._MODELS", ("gone.jar",))
    with pytest.raises(InputError, match="gone.jar: SPICE needs this file; leave spice out"):
        CaptionScorer(tmp_path / "a.json", metrics=("bleu", "spice"))


# ---- python -m cococaption -------------------------------------------------------------------------------------------

ARGV = f"--annotations {ANNOTATIONS} --results results.json --metrics bleu"
ARGV_REFUSED = {
    ARGV.replace(ANNOTATIONS, "gone.json"): "gone.json: no such file",
    ARGV.replace("results.json", "other.json"): f"{ANNOTATIONS}: lacks 1 of the images.*same split",
    f"{ARGV} --json data": "data: is a folder; give the name of a file",
}


@pytest.mark.parametrize(("argv", "message"), ARGV_REFUSED.items())
def test_argv(box, argv, message):
    box.write("other.json", '[{"image_id": 5, "caption": "a"}]')
    check_refused(box, main, argv, message)


def test_brackets_are_refused(box):
    box.write("results.json", BRACKETS)
    check_refused_in_shell(box, f"-m cococaption {ARGV}", "error: results.json: JSON nested too deeply")


def test_output(box, monkeypatch, capsys):
    """SPICE's NaN of a text that it cannot parse, which JSON does not know, is null."""

    class Spice:
        def compute_score(self, references, candidates):
            return math.nan, [{"All": {"f": math.nan}}]

    monkeypatch.setattr("cococaption.spice._MODELS", ())
    monkeypatch.setattr("pycocoevalcap.spice.spice.Spice", Spice)
    box.json(ANNOTATIONS, lambda data: data["images"].append({"id": 22}))
    box.json(ANNOTATIONS, lambda data: data["annotations"].append({"image_id": 22, "caption": "a boat"}))
    main(f"{ARGV} spice --json out/scores.json --cache_dir cache".split())
    shown = "".join(f"Bleu_{n}   {score}\n" for n, score in enumerate(("0.1667", "0.0000", "0.0000", "0.0000"), 1))
    assert capsys.readouterr().out == f"{shown}SPICE    0.0000\n1 of 2 annotated images scored\n"
    written = json.loads((box / "out/scores.json").read_text())
    assert written["eval"].keys() == {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "SPICE"}
    assert written["imgToEval"] == {"21": written["eval"] | {"image_id": 21, "SPICE": None}}
