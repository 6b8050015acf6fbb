"""Reading annotation and result files, and the cache of tokenised references."""

import json

import pytest

import cococaption.references
from cococaption import CaptionScorer, read_annotations, read_results
from cococaption.references import prepare_references
from cococaption.spice import _MODELS, check_models
from cococaption.tokenizer import caption_problem
from utils.errors import InputError
from utils.files import write_json

BIG = 2**63 - 1
GOOD = {
    "images": [{"id": 1}, {"id": BIG}],
    "annotations": [
        {"id": 1, "image_id": BIG, "caption": "the sky is calm"},
        {"id": 2, "image_id": 1, "caption": "a red tree"},
        {"id": 3, "image_id": BIG, "caption": "a quiet sea"},
    ],
}


def changed(part: str, index: int, **fields) -> dict:
    data = json.loads(json.dumps(GOOD))
    data[part][index].update(fields)
    return data


def test_annotations_in_the_order_of_the_images(tmp_path):
    write_json(tmp_path / "a.json", GOOD)
    assert list(read_annotations(tmp_path / "a.json").items()) == [
        (1, ["a red tree"]),
        (BIG, ["the sky is calm", "a quiet sea"]),
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "a JSON object"),
        ({"images": []}, "'images' is missing or empty"),
        ({"images": [{"id": 1}]}, "'annotations' is missing or empty"),
        (changed("images", 1, id=1), r"images\[1\]: duplicate image id 1;"),
        (changed("images", 1, id=2**63), r"images\[1\]: id: '9223372036854775808' is not a 64-bit integer"),
        (changed("images", 1, id=True), r"images\[1\]: id: 'True' is not"),
        (changed("annotations", 2, image_id=5), r"annotations\[2\]: image_id 5 is not in images"),
        (changed("annotations", 1, image_id=BIG), "image 1 has no annotation"),
        (changed("annotations", 0, caption=None), r"annotations\[0\]: caption: the caption is NoneType, not text"),
        (changed("annotations", 0, caption="a\u2028b"), r"annotations\[0\]: caption: .*U\+2028; replace it by a space"),
        ({**GOOD, "annotations": [{"id": 1, "image_id": 1}]}, r"annotations\[0\]: has no 'caption'"),
        ({**GOOD, "annotations": ["a red tree"]}, r"annotations\[0\]: is not a JSON object"),
    ],
)
def test_annotations_refused(tmp_path, data, problem):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=problem) as error:
        read_annotations(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, "a JSON list"),
        ([], "at least one record"),
        (
            [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}],
            "record 1: a second caption for image 1",
        ),
        ([{"image_id": "1", "caption": "a"}], "record 0: image_id: '1' is not a 64-bit integer"),
        ([{"image_id": 1, "caption": 5}], "record 0: caption: the caption is int"),
        ([{"image_id": 1}], "record 0: has no 'caption'"),
    ],
)
def test_results_refused(tmp_path, data, problem):
    path = tmp_path / "r.json"
    write_json(path, data)
    with pytest.raises(InputError, match=problem) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "caption", ["", "a\nb", "\n", "a|||b", "😀", "a\tb\x00c", "a\x85b", "a\xa0b", "ends in\r", "\r"]
)
def test_captions_accepted(caption):
    assert caption_problem(caption) is None


@pytest.mark.parametrize(
    "caption", ["a\rb", "a\r\n", "a\r\nb", "\r\r", "a\x0bb", "a\x0c", "\u2028", "a\u2029b", "\ud83d", 1]
)
def test_captions_refused(caption):
    assert caption_problem(caption)


def test_score_refuses_before_any_java(tmp_path):
    write_json(tmp_path / "a.json", GOOD)
    with CaptionScorer(tmp_path / "a.json") as scorer:
        for captions, problem in [
            ({}, "no caption to score"),
            ({7: "a"}, r"a\.json: lacks 1 of the images .*, e.g. 7;"),
            ({1: "a\rb"}, r"caption of image 1: .*U\+000D"),
        ]:
            with pytest.raises(InputError, match=problem):
                scorer.score(captions)
        assert scorer._meteor._processes == []


def test_references_on_disk(tmp_path, monkeypatch, capsys):
    captions, other = [["A red tree.", "no."], ["5 calm 😀 seas"]], [["A red tree.", "no."], ["6 calm seas"]]
    expected = [["a red tree", "no."], ["5 calm seas"]]
    calls = []
    tokenize = cococaption.references.tokenize
    monkeypatch.setattr(cococaption.references, "tokenize", lambda texts: calls.append(len(texts)) or tokenize(texts))

    assert prepare_references(captions, tmp_path).texts == expected
    (cache,) = tmp_path.iterdir()
    whole = cache.read_bytes()
    assert prepare_references(captions, tmp_path).texts == expected
    assert calls == [3]
    prepare_references(other, tmp_path)
    (other_cache,) = set(tmp_path.iterdir()) - {cache}
    calls.clear()
    assert capsys.readouterr().out == ""

    for number, damaged in enumerate([whole[:-30], whole.replace(b"red", b"bed"), b"[]", other_cache.read_bytes()], 1):
        cache.write_bytes(damaged)
        assert prepare_references(captions, tmp_path).texts == expected
        assert calls == [3] * number and cache.read_bytes() == whole
        assert capsys.readouterr().out == f"{cache}: damaged; recreating it\n"

    assert prepare_references(other, tmp_path).texts[1] == ["6 calm seas"]
    assert len(list(tmp_path.iterdir())) == 2


def test_unwritable_cache_is_only_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not cached"):
        assert prepare_references([["a tree"]], tmp_path / "file" / "cache").texts == [["a tree"]]


def test_spice_without_its_models(tmp_path):
    try:
        check_models()
    except InputError as error:
        assert _MODELS[0] in str(error) and "leave spice out" in str(error)
    else:
        pytest.skip("SPICE's models are installed here")
    write_json(tmp_path / "a.json", GOOD)
    with pytest.raises(InputError, match="SPICE needs this file"):
        CaptionScorer(tmp_path / "a.json", metrics=("bleu", "spice"))
