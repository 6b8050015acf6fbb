"""The report's scores beside the caption metrics, against cases that are worked out by hand."""

import math

import numpy as np
import pytest

from cococaption.references import References
from utils.constants import EMOTIONS
from utils.evaluation.baselines import ceiling, floor
from utils.evaluation.bootstrap import ImageScores
from utils.evaluation.emotion_metrics import distribution_distances, vad_distances
from utils.evaluation.image_scores import group_scores
from utils.evaluation.text_metrics import self_bleu, text_diversity


def test_distinct_and_coverage():
    found = text_diversity(["The sky, the sky!", "a sky"], ["the blue sea", "It's a sky_line"])
    # 6 words: the sky the sky a sky; pairs: the sky, sky the, a sky
    assert found["distinct_1"] == 3 / 6 and found["distinct_2"] == 3 / 6
    assert found["coverage"] == 3 / 7  # of the, blue, sea, it's, a, sky, line
    assert text_diversity([""], []) == {}


def test_self_bleu():
    same = "a b c d e".split()
    assert self_bleu([same, same]) == pytest.approx(1)
    assert self_bleu([same, "f g h i j".split()]) == pytest.approx(0, abs=1e-9)
    # "a b c d e" against "a b c d d d": 4/5, 3/4, 2/3, 1/2, shorter by one word; the other way: 4/6, 3/5, 2/4, 1/3
    one = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * 2.718281828 ** (1 - 6 / 5)
    other = (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert self_bleu([same, "a b c d d d".split()]) == pytest.approx((one + other) / 2)


def test_self_bleu_draws_the_same_sample_again():
    texts = [[*"abcdefgh"[i % 5 :], str(i)] for i in range(40)]
    assert self_bleu(texts, sample=10) == self_bleu(texts, sample=10) != self_bleu(texts)


def _record(emotion, name):
    shares = [0.0] * 9
    for share, of in zip((0.6, 0.4) if emotion else (0.5, 0.5), (emotion or "fear", "something else"), strict=True):
        shares[EMOTIONS.index(of)] = share
    return {"origin_emotion_distribution": shares, "image_name": name}


def test_groups():
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


def test_no_image_is_right_and_no_emotion_is_named():
    records = {"1": _record("awe", "Cubism/a.jpg")}
    of_none = ImageScores([1], {"sub_acc": np.array([0.0])}, {"bleu": np.ones((1, 10))})
    assert group_scores(of_none, records)["of_right_emotion"] == {"images": 0}
    assert "of_right_emotion" not in group_scores(ImageScores([1], {}, {}), records)


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


def test_vad_distance():
    lexicon = {"calm": (1.0, -1.0, 0.0), "dark": (-1.0, 1.0, 0.0), "sea": (0.5, 0.0, 0.0)}
    texts = {1: "Calm, a sea", 2: "nothing known", 3: "dark", 4: "dark"}
    references = {1: ["calm", "calm dark dark"], 2: ["calm"], 3: ["unknown"], 4: ["The dark!"]}
    # 1: (0.75, -0.5, 0) against (0, 0, 0)
    assert vad_distances(texts, references, lexicon) == {1: pytest.approx((0.75**2 + 0.5**2) ** 0.5), 4: 0}


def test_distances_to_the_annotators():
    shares, far = [0.5, 0.5, *[0.0] * 7], [0.0, 0.0, 1.0, *[0.0] * 6]
    records = {str(image): {"origin_emotion_distribution": shares} for image in (1, 2, 3)}
    found = distribution_distances({1: shares, 2: [0.25, 0.75, *[0.0] * 7], 3: far}, records)
    assert all(of[1] == pytest.approx(0) for of in found.values())
    assert found["KL"][2] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert found["brier"][2] == pytest.approx(0.125) and found["brier"][3] == pytest.approx(1.5)
    assert found["JS"][3] == pytest.approx(1) and np.isfinite(found["KL"][3])


def test_self_bleu_takes_the_shorter_of_two_equally_close_lengths():
    """Five words between four and six: four, so that no brevity penalty falls on them."""
    texts = [list("abcde"), list("abcd"), list("abcdef")]
    assert self_bleu(texts) == pytest.approx((1 + math.exp(1 - 5 / 4) + (1 / 3) ** 0.25) / 3, abs=1e-6)
