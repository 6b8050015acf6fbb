"""Scores of groups of images, intervals, floor and ceiling, against cases that are worked out by hand."""

import numpy as np
import pytest

from cococaption.references import References
from utils.constants import EMOTIONS
from utils.evaluation.baselines import ceiling, floor
from utils.evaluation.image_scores import ImageScores, group_scores, intervals, references_hash


def record(emotion: str | None, name: str) -> dict:
    distribution = [0.0] * 9
    distribution[EMOTIONS.index(emotion or "fear")], distribution[8] = (0.6, 0.4) if emotion else (0.5, 0.5)
    return {"origin_emotion_distribution": distribution, "image_name": name}


def test_scores_of_groups():
    records = {
        "1": record("awe", "Cubism/a.jpg"),
        "2": record("awe", "Pop_Art/sub/b.jpg"),
        "3": record(None, "Cubism/c.jpg"),
        "4": record("sadness", "d.jpg"),
    }
    values = {"sub_acc": np.array([1, 0, np.nan, 1]), "ROUGE_L": np.array([0.2, 0.4, 0.6, 0.8])}
    sums = {"bleu": np.array([[n] * 4 + [of] * 6 for n, of in ((1, 4), (2, 4), (3, 4), (4, 8))], np.float64)}
    found = group_scores(ImageScores([1, 2, 3, 4], values, sums), records)
    right = found["of_right_emotion"]
    assert right["images"] == 2 and right["ROUGE_L"] == pytest.approx(0.5) and "sub_acc" not in right
    assert right["Bleu_1"] == pytest.approx(5 / 12)  # of the sum, not the mean
    assert {name: of["images"] for name, of in found["per_emotion"].items()} == {"awe": 2, "sadness": 1}
    assert found["per_emotion"]["awe"]["sub_acc"] == 0.5
    assert {name: of["images"] for name, of in found["per_style"].items()} == {"Cubism": 2, "Pop_Art": 1}
    assert found["per_style"]["Cubism"]["ROUGE_L"] == pytest.approx(0.4)
    assert found["per_style"]["Cubism"]["sub_acc"] == 1  # the image without a majority does not count
    of_none = ImageScores([1], {"sub_acc": np.array([0.0])}, {"bleu": np.ones((1, 10))})
    assert group_scores(of_none, records)["of_right_emotion"] == {"images": 0}
    assert "of_right_emotion" not in group_scores(ImageScores([1], {}, {}), records)


def test_references_are_the_same_in_any_order():
    references = {1: ["a", "b"], 2: ["c"], 3: ["of no scored image"]}
    expected = references_hash(references, [1, 2])
    assert references_hash({2: ["c"], 1: ["b", "a"]}, [2, 1]) == expected
    assert references_hash({1: ["a"], 2: ["b", "c"]}, [1, 2]) != expected


def test_interval_of_a_mean():
    """0.5 of 400 images: the normal interval is 0.5 -+ 1.96 * 0.025; an image that does not count changes nothing."""
    values = np.array([0.0, 1.0, np.nan] * 200)
    low, high = intervals(ImageScores(list(range(600)), {"x": values}, {}))["x"]
    assert (low, high) == (pytest.approx(0.451, abs=0.006), pytest.approx(0.549, abs=0.006))


# ---- floor and ceiling -----------------------------------------------------------------------------------------------


def references_of(*images: list[str]) -> References:
    return References([text for texts in images for text in texts], np.array([len(texts) for texts in images]))


def test_floor():
    records = [
        record("awe", "a") | {"emotions": ["awe", "awe"]},
        record("sadness", "b") | {"emotions": ["sadness", "fear"]},
        record(None, "c") | {"emotions": ["fear", "fear"]},
    ]
    found = floor(references_of(["x y", "a b c d"], ["a b c d", "e f"], ["g h"]), records)
    # awe has two votes and fear three; no majority is fear
    assert found["emotion"] == "fear" and found["sentence"] == "a b c d"
    assert found["scores"]["sub_acc"] == 0 and found["scores"]["ROUGE_L"] == pytest.approx(2 / 3)
    assert found["scores"]["Bleu_1"] == pytest.approx(8 / 12)
    records[2]["emotions"] = ["fear", "awe"]  # three votes against two: awe is right for one of the two majorities
    assert floor(references_of(["x"], ["y"], ["z"]), records)["scores"]["sub_acc"] == 0.5
    records[1]["emotions"] = ["fear", "fear"]  # three votes each: the first of the nine
    assert floor(references_of(["x"], ["y"], ["z"]), records[::-1])["emotion"] == "awe"
    tied = [row | {"emotions": ["anger", "excitement"]} for row in records]
    assert floor(references_of(["x"], ["y"], ["z"]), tied)["emotion"] == "excitement"  # not the first of the alphabet


def test_ceiling():
    texts = ["a b c d", "a b c d"], ["only one"], ["e f g h", "i j k l"]
    records = [{"emotions": of} for of in (["awe"] * 3, ["fear"], ["awe", "fear"], ["anger"] * 2)]
    found = ceiling(references_of(*texts), records)
    assert found["images"] == 2 and found["scores"]["Bleu_4"] < 1
    # the drawn text is not among its own references; awe and anger agree, fear is alone, awe and fear disagree
    assert found["scores"]["ROUGE_L"] == 0.5 and found["scores"]["Bleu_1"] == pytest.approx(0.5)
    assert found["scores"]["sub_acc"] == pytest.approx(2 / 3)
    # half of the two others is not more than half
    assert "sub_acc" not in ceiling(references_of(*texts), [{"emotions": ["fear", "awe", "anger"]}])["scores"]
