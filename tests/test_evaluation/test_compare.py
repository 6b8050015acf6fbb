"""utils.compare: scores, images and scores that are left out of two runs whose images are known one by one."""

from pathlib import Path

import numpy as np
import pytest

from utils import compare
from utils.errors import InputError
from utils.evaluation.image_scores import ImageScores, images_path, paired_difference, write_images
from utils.files import read_json, write_json

IMAGES = [5, 2, 9, 4]
NAN = float("nan")
A = {"ROUGE_L": [0.1, 0.2, 0.3, 0.4], "CIDEr": [0.5, 2.0, 0.0, 0.5], "sub_acc": [1, NAN, 0, 0], "max_lcs": [4] * 4}
B = {"ROUGE_L": [0.2, 0.3, 0.4, 0.9], "CIDEr": [0.5, 0.25, 1.5, 0.25], "sub_acc": [1, NAN, 1, 1], "max_lcs": [2.5] * 4}
B["vad_distance"] = [0.5] * 4


def write_run(folder: Path, values: dict[str, list[float]], references: str = "r", **facts) -> Path:
    """The report of a run and the scores of its images."""
    values = {name: np.array(of_images, np.float64) for name, of_images in values.items()}
    scores = ImageScores(IMAGES, values, {})
    report = folder / "report.json"
    write_json(report, {"scores": {name: float(np.nanmean(row)) for name, row in values.items()}} | facts)
    records = {str(image): {"image_name": f"Cubism/{image}.jpg"} for image in IMAGES}
    write_images(report, scores, records, {image: f"{folder.name} of {image}" for image in IMAGES}, references)
    return report


def test_b_minus_a(tmp_path, capsys):
    """Of the images that count; both forms of RUN, and what is printed."""
    write_run(tmp_path / "a", A)
    report = write_run(tmp_path / "b", B)
    compare.main([str(tmp_path / "a"), str(report), "--json", str(tmp_path / "c.json"), "--resamples", "200"])
    shown, found = capsys.readouterr().out, read_json(tmp_path / "c.json")
    assert list(found["scores"]) == ["ROUGE_L", "CIDEr", "sub_acc", "max_lcs"]  # B alone has a VAD distance
    accuracy, rouge = found["scores"]["sub_acc"], found["scores"]["ROUGE_L"]
    assert [accuracy[name] for name in ("a", "b", "difference")] == pytest.approx([1 / 3, 1, 2 / 3])
    assert [rouge[name] for name in ("a", "b", "difference")] == pytest.approx([0.25, 0.45, 0.2])
    assert 0.05 < rouge["interval"][0] < 0.2 < rouge["interval"][1] <= 0.5 and rouge["p"] == pytest.approx(2 / 201)
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line}
    assert rows["ROUGE-L"][:3] == ["25.00", "45.00", "+20.00"] and rows["ACC"][:3] == ["33.33", "100.00", "+66.67"]
    assert rows["CIDEr"][2] == "-12.50"
    assert rows["max-LCS"][:6] == ["4.00", "2.50", "-1.50", "-1.50", "..", "-1.50"]  # not a fraction
    assert f"4 images, 200 resamples, 95 % interval; A: {tmp_path / 'a'}, B: {report}" in shown


def test_the_images_that_differ_most(tmp_path, capsys):
    """In CIDEr, which comes before ROUGE-L; in either direction."""
    for name, values in (("a", A), ("b", B)):
        write_run(tmp_path / name, values)
    compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--images", "2", "--json", str(tmp_path / "c.json")])
    assert read_json(tmp_path / "c.json")["images_differing_most"] == [
        {
            "image_id": image,
            "image_name": f"Cubism/{image}.jpg",
            "a": {"caption": f"a of {image}", "CIDEr": a},
            "b": {"caption": f"b of {image}", "CIDEr": b},
        }
        for image, a, b in ((2, 2.0, 0.25), (9, 0.0, 1.5))
    ]
    shown = capsys.readouterr().out
    assert "differ most in CIDEr:\nCubism/2.jpg\n  A 200.0  a of 2\n  B  25.0  b of 2\nCubism/9.jpg" in shown


# fact of the reports -> the scores that mean something else with another, and their line
LEFT_OUT = {
    "emotion_classifier": (
        ["EA_more_than_half", "EA_at_least_half", "self_consistency"],
        "EA > 1/2, EA >= 1/2, consistency, as the runs differ in emotion classifier",
    ),
    "clip_score": (["CLIPScore", "RefCLIPScore"], "CLIPScore, RefCLIPScore, as the runs differ in clip score"),
    "lexicon_sha256": (["vad_distance"], "VAD distance, as the runs differ in lexicon"),
    "training_texts_sha256": (["max_lcs"], "max-LCS, as the runs differ in training texts"),
}


def test_scores_that_rest_on_different_things_are_left_out(tmp_path, capsys):
    """Nothing is left out for a report that does not say what it rests on."""
    names = ["ROUGE_L", *(name for scores, _ in LEFT_OUT.values() for name in scores)]
    values = dict.fromkeys(names, [0.1, 0.2, 0.3, 0.4])
    same = dict.fromkeys(LEFT_OUT, "the same")
    a = write_run(tmp_path / "a", values, **same)
    cases = [({fact: "another"}, *expected) for fact, expected in LEFT_OUT.items()]
    for other, missing, line in (*cases, (dict.fromkeys(LEFT_OUT), [], None)):
        b = write_run(tmp_path / "b", values, **same | other)
        compare.main([str(a), str(b), "--json", str(tmp_path / "c.json"), "--resamples", "100"])
        assert list(read_json(tmp_path / "c.json")["scores"]) == [name for name in names if name not in missing]
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
        assert lines == ([f"left out: {line}"] if line else [])


def test_runs_that_cannot_be_compared(tmp_path):
    runs = [str(write_run(tmp_path / name, A)) for name in "ab"]
    images = images_path(tmp_path / "b" / "report.json")
    good = read_json(images)
    for change, message in (
        ({"references": "x"}, "scored against other references .*; score both runs with the same --annFileExp"),
        ({"images": good["images"][::-1]}, "scored other images than .*; score both runs on the same split"),
        ({"sums": None}, "report_images.json: does not hold the scores of single images"),
    ):
        write_json(images, good | change)
        with pytest.raises(InputError, match=message):
            compare.main(runs)
    images.unlink()
    with pytest.raises(InputError, match="report_images.json: no such file"):
        compare.main(runs)


def test_the_same_samples_are_drawn_of_both_runs():
    """Two runs that differ by 0.01 on every image differ surely, however much the images vary."""
    values = np.random.default_rng(0).uniform(size=200)
    a, b, c = (ImageScores(list(range(200)), {"x": of}, {}) for of in (values, values + 0.01, values[::-1].copy()))
    sure, chance = paired_difference(a, b)["x"], paired_difference(a, c)["x"]
    assert sure["interval"] == pytest.approx([0.01, 0.01]) and sure["p"] == pytest.approx(2 / 1001)
    assert chance["p"] > 0.5 and chance["interval"][0] < 0 < chance["interval"][1]
    assert paired_difference(a, a)["x"]["p"] == 1
    first, again, other = (paired_difference(a, c, 300, seed)["x"]["interval"] for seed in (1, 1, 2))
    assert first == again != other
