"""Scores of groups of images, bootstrap, floor and ceiling, against cases that are worked out by hand."""

import numpy as np
import pytest

from cococaption.references import References
from utils.constants import EMOTIONS
from utils.evaluation.baselines import ceiling, floor
from utils.evaluation.image_scores import ImageScores, group_scores, intervals, paired_difference


def _record(emotion, name):
    distribution = [0.0] * 9
    distribution[EMOTIONS.index(emotion or "fear")], distribution[8] = (0.6, 0.4) if emotion else (0.5, 0.5)
    return {"origin_emotion_distribution": distribution, "image_name": name}


def test_scores_of_groups():
    records = {
        "1": _record("awe", "Cubism/a.jpg"),
        "2": _record("awe", "Pop_Art/sub/b.jpg"),
        "3": _record(None, "Cubism/c.jpg"),
        "4": _record("sadness", "d.jpg"),
    }
    values = {"sub_acc": np.array([1, 0, np.nan, 1]), "ROUGE_L": np.array([0.2, 0.4, 0.6, 0.8])}
    sums = {"bleu": np.array([[n] * 4 + [4] * 4 + [4, 4] for n in (1, 2, 3, 4)], np.float64)}
    found = group_scores(ImageScores([1, 2, 3, 4], values, sums), records)
    right = found["of_right_emotion"]
    assert right["images"] == 2 and right["ROUGE_L"] == pytest.approx(0.5) and "sub_acc" not in right
    assert right["Bleu_1"] == pytest.approx(5 / 8)  # of the sum, not the mean
    assert {name: of["images"] for name, of in found["per_emotion"].items()} == {"awe": 2, "sadness": 1}
    assert found["per_emotion"]["awe"]["sub_acc"] == 0.5
    assert {name: of["images"] for name, of in found["per_style"].items()} == {"Cubism": 2, "Pop_Art": 1}
    assert found["per_style"]["Cubism"]["ROUGE_L"] == pytest.approx(0.4)
    assert found["per_style"]["Cubism"]["sub_acc"] == 1  # the image without a majority does not count


def test_groups_of_no_image():
    records = {"1": _record("awe", "Cubism/a.jpg")}
    of_none = ImageScores([1], {"sub_acc": np.array([0.0])}, {"bleu": np.ones((1, 10))})
    assert group_scores(of_none, records)["of_right_emotion"] == {"images": 0}
    assert "of_right_emotion" not in group_scores(ImageScores([1], {}, {}), records)


# ---- bootstrap -------------------------------------------------------------------------------------------------------


def test_interval_of_a_mean():
    """0.5 of 400 images: the normal interval is 0.5 -+ 1.96 * 0.025; an image that does not count changes nothing."""
    values = np.array([0.0, 1.0, np.nan] * 200)
    low, high = intervals(ImageScores(list(range(600)), {"x": values}, {}))["x"]
    assert (low, high) == (pytest.approx(0.451, abs=0.006), pytest.approx(0.549, abs=0.006))


def test_paired_difference_uses_the_same_images():
    """Two runs that differ by 0.01 on every image differ surely, however much the images vary."""
    values = np.random.default_rng(0).uniform(size=200)
    a, b, c = (ImageScores(list(range(200)), {"x": of}, {}) for of in (values, values + 0.01, values[::-1].copy()))
    sure, chance = paired_difference(a, b)["x"], paired_difference(a, c)["x"]
    assert sure["interval"] == pytest.approx([0.01, 0.01]) and sure["p"] < 0.01
    assert chance["p"] > 0.5 and chance["interval"][0] < 0 < chance["interval"][1]


# ---- floor and ceiling -----------------------------------------------------------------------------------------------


def _references(*images):
    return References([text for texts in images for text in texts], np.array([len(texts) for texts in images]))


def test_floor():
    records = [
        _record("awe", "a") | {"emotions": ["awe", "awe"]},
        _record("sadness", "b") | {"emotions": ["sadness", "fear"]},
        _record(None, "c") | {"emotions": ["fear", "fear"]},
    ]
    found = floor(_references(["x y", "a b c d"], ["a b c d", "e f"], ["g h"]), records)
    # awe has two votes and fear three; no majority is fear
    assert found["emotion"] == "fear" and found["sentence"] == "a b c d"
    assert found["scores"]["sub_acc"] == 0 and found["scores"]["ROUGE_L"] == pytest.approx(2 / 3)
    assert found["scores"]["Bleu_1"] == pytest.approx(8 / 12)
    records[2]["emotions"] = ["awe", "fear"]  # three votes against two: awe is right for one of the two majorities
    assert floor(_references(["x"], ["y"], ["z"]), records)["scores"]["sub_acc"] == 0.5


def test_ceiling():
    texts = ["a b c d", "a b c d"], ["only one"], ["e f g h", "i j k l"]
    records = [{"emotions": of} for of in (["awe"] * 3, ["fear"], ["awe", "fear"])]
    found = ceiling(_references(*texts), records)
    assert found["images"] == 2 and found["scores"]["Bleu_4"] < 1
    # the drawn text is not among its own references; awe agrees, fear is alone, awe and fear disagree
    assert found["scores"]["ROUGE_L"] == 0.5 and found["scores"]["Bleu_1"] == pytest.approx(0.5)
    assert found["scores"]["sub_acc"] == 0.5
