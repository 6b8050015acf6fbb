"""Scores of emotions against values worked out by hand (accuracy against the published code's: tests/test_models/test_golden.py)."""

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.evaluation.emotion_metrics import (
    accuracy_and_ece,
    calibration_of_images,
    confusion_matrix,
    distribution_distances,
    emotion_accuracy,
    emotion_alignment,
    named_emotion,
    vad_distances,
)
from utils.evaluation.image_scores import ImageScores, resampled_weights


def records_with(*dominant: str | None) -> dict:
    """Images 1, 2, ... with these dominant emotions."""
    records = {}
    for image, emotion in enumerate(dominant, start=1):
        distribution = [1 / 9] * 9 if emotion is None else [0.4 / 8] * 9
        if emotion is not None:
            distribution[EMOTIONS.index(emotion)] = 0.6
        records[str(image)] = {"origin_emotion_distribution": distribution}
    return records


def test_a_dominant_emotion_has_more_than_half_of_the_votes():
    records = records_with("awe", "awe")
    records["2"]["origin_emotion_distribution"] = [0.5, 0.5] + [0] * 7
    assert emotion_accuracy({1: "awe because x", 2: "amusement because x"}, records) == (1.0, 1)


@pytest.mark.parametrize(
    ("caption", "emotion"),
    [
        ("awe because a because b", "awe"),
        (" something else  because", "something else"),
        ("Awe", "Awe"),
        ("", ""),
        ("because awe", ""),
    ],
)
def test_named_emotion(caption, emotion):
    assert named_emotion(caption) == emotion


def test_accuracy_counts_images_not_classes():
    """Eight of awe and two of fear: who always says awe is right eight times in ten."""
    records = records_with(*["awe"] * 8, "fear", "fear")
    assert emotion_accuracy(dict.fromkeys(range(1, 11), "awe because x"), records) == (0.8, 10)
    distributions = distributions_of(*[{1: 0.7, 6: 0.3}] * 10)
    assert accuracy_and_ece(distributions, records) == pytest.approx({"acc": 0.8, "ece": 0.1})


def test_confusion_matrix():
    records = records_with("awe", "awe", "fear", "something else", None, "fear")
    captions = {1: "awe because", 2: "fear because", 3: "Fear because", 4: "something else", 5: "awe because", 9: "awe"}
    expected = np.zeros((9, 10), dtype=int)
    expected[1, 1] = expected[1, 6] = expected[8, 8] = 1
    expected[6, 9] = 2  # "Fear" is no emotion's name, and image 6 has no caption
    assert confusion_matrix(captions, records).tolist() == expected.tolist()
    assert emotion_accuracy(captions, records) == (np.trace(expected) / expected.sum(), expected.sum())


def test_emotion_alignment():
    votes = {
        1: ["awe", "awe", "fear"],  # two thirds
        2: ["awe", "awe", "fear", "sadness"],  # half, nothing else as many
        3: ["awe", "fear"],  # a tie
        4: ["fear"],
        5: ["awe", "fear", "sadness"],  # below half
        6: ["anger", "anger", "anger", "awe"],  # no explanation
    }
    predicted = {1: "awe", 2: "awe", 3: "awe", 4: "awe", 5: "awe", 99: "awe"}
    assert emotion_alignment(predicted, votes) == {
        "EA_more_than_half": {1: True, 4: False, 6: False},
        "EA_at_least_half": {1: True, 2: True, 4: False, 6: False},
    }


# ---- calibration -----------------------------------------------------------------------------------------------------


def distributions_of(*rows: dict[int, float]) -> dict[int, list[float]]:
    return {image: [row.get(label, 0.0) for label in range(9)] for image, row in enumerate(rows, 1)}


def test_accuracy_and_calibration_by_hand(monkeypatch):
    # right, bin ]13/15, 14/15]; wrong, the same bin; right, another bin; no dominant emotion
    four = distributions_of({1: 0.9, 0: 0.1}, {0: 0.91, 1: 0.09}, {6: 0.6, 0: 0.4}, {0: 1.0})
    records = records_with("awe", "awe", "fear", None)
    scores = accuracy_and_ece(four, records)
    assert scores["acc"] == pytest.approx(2 / 3)
    assert scores["ece"] == pytest.approx((2 * abs(0.5 - 0.905) + abs(1 - 0.6)) / 3)
    assert accuracy_and_ece({image: four[image] for image in (3, 1, 4, 2)}, records) == pytest.approx(scores)
    assert accuracy_and_ece({4: four[4]}, records) == {"acc": 0.0, "ece": 0.0}
    monkeypatch.setattr("utils.evaluation.emotion_metrics.BINS", 1)
    assert accuracy_and_ece(four, records)["ece"] == pytest.approx(abs(2 / 3 - (0.9 + 0.91 + 0.6) / 3))


def test_a_confidence_on_the_border_belongs_to_the_bin_below(monkeypatch):
    """Two bins: one half, right, is alone in ]0, 1/2]; three quarters, wrong, in ]1/2, 1]. Together they would be 1/8 off."""
    monkeypatch.setattr("utils.evaluation.emotion_metrics.BINS", 2)
    records = {str(n): {"origin_emotion_distribution": [1.0] + [0.0] * 8} for n in (1, 2)}
    distributions = distributions_of({0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.75})
    assert accuracy_and_ece(distributions, records)["ece"] == (abs(1 - 0.5) + abs(0 - 0.75)) / 2


def test_resampled_calibration_is_that_of_the_drawn_images():
    """The error of a sample, from the sums, is that of the same images scored again as a split of their own."""
    draw = np.random.default_rng(0)
    emotions = [("awe", "fear", "sadness", None)[index] for index in draw.integers(4, size=60)]
    distributions = {image: row.tolist() for image, row in enumerate(draw.dirichlet(np.full(9, 0.2), size=60), 1)}
    right, rows = calibration_of_images(distributions, records_with(*emotions))
    scores = ImageScores(
        list(distributions),
        {"head_acc": np.array([float(right.get(image, np.nan)) for image in distributions])},
        {"head_ece": np.array([rows.get(image, [0.0] * 16) for image in distributions])},
    )
    weights = resampled_weights(60, resamples=5)
    found = scores.scores(weights)
    for sample, counts in enumerate(weights.astype(int).tolist()):
        drawn = [place for place, count in enumerate(counts) for _ in range(count)]
        again = {number: distributions[place + 1] for number, place in enumerate(drawn, 1)}
        expected = accuracy_and_ece(again, records_with(*(emotions[place] for place in drawn)))
        assert found["head_ece"][sample] == pytest.approx(expected["ece"], abs=1e-12)
        assert found["head_acc"][sample] == pytest.approx(expected["acc"], abs=1e-12)


# ---- distances -------------------------------------------------------------------------------------------------------


def test_vad_distance():
    lexicon = {"calm": (1.0, -1.0, 0.0), "dark": (-1.0, 1.0, 0.0), "sea": (0.5, 0.0, 0.0)}
    texts = {1: "Calm, a sea", 2: "nothing known", 3: "dark", 4: "dark"}
    references = {1: ["calm", "calm dark dark"], 2: ["calm"], 3: ["unknown"], 4: ["The dark!"]}
    # 1: (0.75, -0.5, 0) against (0, 0, 0)
    assert vad_distances(texts, references, lexicon) == {1: pytest.approx((0.75**2 + 0.5**2) ** 0.5), 4: 0}


def test_distances_to_the_annotators_distribution():
    equal, far = [0.5, 0.5, *[0.0] * 7], [0.0, 0.0, 1.0, *[0.0] * 6]
    records = {str(image): {"origin_emotion_distribution": equal} for image in (1, 2, 3)}
    distances = distribution_distances({1: equal, 2: [0.25, 0.75, *[0.0] * 7], 3: far}, records)
    assert all(of_images[1] == pytest.approx(0) for of_images in distances.values())
    assert distances["KL"][2] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert distances["brier"][2] == pytest.approx(0.125) and distances["brier"][3] == pytest.approx(1.5)
    assert distances["JS"][3] == pytest.approx(1) and np.isfinite(distances["KL"][3])
