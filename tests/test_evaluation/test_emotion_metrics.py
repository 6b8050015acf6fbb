"""Scores of emotions against values worked out by hand (accuracy against the published code's: tests/test_models/test_golden.py)."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from utils.constants import EMOTIONS
from utils.evaluation.emotion_metrics import (
    accuracy_and_ece,
    calibration_of_images,
    confusion_matrix,
    distribution_distances,
    emotion_accuracy,
    emotion_alignment,
    emotion_counts,
    f1_scores,
    vad_distances,
)
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.image_scores import ImageScores, image_scores, intervals, resampled_weights
from utils.evaluation.tables import write_report


def records_with(*dominant: str | None) -> dict:
    """Images 1, 2, ... with these dominant emotions, or without one (None)."""
    distributions = [[0.6 if name == emotion else 0.05 for name in EMOTIONS] for emotion in dominant]
    return {str(image): {"origin_emotion_distribution": row} for image, row in enumerate(distributions, start=1)}


def sums_of(captions: dict[int, str], records: dict) -> np.ndarray:
    """What `f1_scores` takes, over all images."""
    return np.sum(list(emotion_counts(captions, records).values()), axis=0)


def test_confusion_matrix():
    records = records_with("awe", "awe", "fear", "something else", None, "fear")
    captions = {1: "awe because", 2: "fear because", 3: "Fear because", 4: "something else", 5: "awe because", 9: "awe"}
    expected = np.zeros((9, 10), dtype=int)
    expected[1, 1] = expected[1, 6] = expected[8, 8] = 1
    expected[6, 9] = 2  # "Fear" is no emotion's name, and image 6 has no caption
    assert confusion_matrix(captions, records).tolist() == expected.tolist()
    assert emotion_accuracy(captions, records) == (np.trace(expected) / expected.sum(), expected.sum())
    sums = [*expected.sum(axis=1), *expected[:, :9].sum(axis=0), *expected.diagonal()]
    assert sums_of(captions, records).tolist() == sums


# ---- precision, recall and F1 of the named emotions -------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    """Records and captions of 300 images of unbalanced emotions, the last two of which none has; both as numbers."""
    draw = np.random.default_rng(4)
    answers = draw.choice(9, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0, 0])
    named = np.where(draw.random(300) < 0.6, answers, draw.integers(10, size=300))
    captions = {image: f"{(*EMOTIONS, 'joy')[name]} because of it" for image, name in enumerate(named, 1)}
    return records_with(*np.array(EMOTIONS)[answers]), captions, answers, named


def test_f1_as_scikit_learn(case):
    records, captions, answers, named = case
    found = f1_scores(sums_of(captions, records))
    expected = precision_recall_fscore_support(answers, named, labels=range(9), zero_division=0)
    for name, values in zip(("precision", "recall", "F1"), expected, strict=False):
        assert found[name] == pytest.approx(values, abs=1e-12)
    for mean in ("macro", "weighted"):
        value = f1_score(answers, named, labels=range(7), average=mean, zero_division=0)
        assert found[f"{mean}_F1"] == pytest.approx(value, abs=1e-12)


def test_report_has_means_of_f1_intervals_and_a_table(case, tmp_path):
    records, captions, answers, _ = case
    scores = image_scores(Evaluation(captions, dict.fromkeys(captions, "it"), {}, {}), records)
    whole = {name: float(values[0]) for name, values in scores.scores(np.ones((1, 300))).items()}
    low, high = intervals(scores)["macro_F1"]
    assert low < whole["macro_F1"] < high < low + 0.25
    table = scores.emotion_table()
    assert list(table) == list(EMOTIONS)  # the last two are named, though no image's
    awe, none = table["awe"], table[EMOTIONS[8]]
    assert awe["images"] == (answers == 1).sum() and awe["interval"][0] < awe["F1"] < awe["interval"][1]
    assert (none["images"], none["recall"], none["F1"]) == (0, 0, 0)
    printed = write_report(tmp_path, {"scores": whole, "test_set": None, "emotions": table})
    assert "macro F1" in printed and "weighted F1" in printed and "- emotions" not in printed
    text = (tmp_path / "report.md").read_text()
    assert f"| {100 * awe['precision']:9.1f} |" in text and f"{100 * awe['interval'][1]:.1f} |" in text


# ---- alignment and calibration ----------------------------------------------------------------------------------------


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


def distributions_of(*rows: dict[int, float]) -> dict[int, list[float]]:
    return {image: [row.get(label, 0.0) for label in range(9)] for image, row in enumerate(rows, 1)}


def test_accuracy_and_calibration_by_hand():
    """A confidence on the border of two bins belongs to the one below."""
    found = distributions_of({1: 0.9, 0: 0.1}, {0: 0.91, 1: 0.09}, {6: 0.6, 0: 0.4}, {0: 0.65, 1: 0.35}, {0: 1.0})
    records = records_with("awe", "awe", "fear", "fear", None)
    # bin ]13/15, 14/15]: one of two is right; ]8/15, 9/15]: one right; ]9/15, 10/15]: one wrong
    ece = (2 * abs(0.5 - 0.905) + abs(1 - 0.6) + abs(0 - 0.65)) / 4
    for images in ((1, 2, 3, 4, 5), (3, 1, 4, 2)):
        scores = accuracy_and_ece({image: found[image] for image in images}, records)
        assert scores == {"acc": 0.5, "ece": pytest.approx(ece)}
    assert accuracy_and_ece({5: found[5]}, records) == {"acc": 0.0, "ece": 0.0}


def test_resampled_calibration_is_that_of_the_drawn_images():
    """The error of a sample, from the sums, is that of the same images scored again as a split of their own."""
    draw = np.random.default_rng(0)
    emotions = draw.choice(["awe", "fear", "sadness", None], size=60)
    distributions = dict(enumerate(draw.dirichlet(np.full(9, 0.2), size=60), 1))
    _, rows = calibration_of_images(distributions, records_with(*emotions))
    sums = np.array([rows.get(image, [0.0] * 16) for image in distributions])
    weights = resampled_weights(60, resamples=5)
    found = ImageScores(list(distributions), {}, {"head_ece": sums}).scores(weights)["head_ece"]
    for error, counts in zip(found, weights.astype(int), strict=True):
        drawn = np.repeat(np.arange(60), counts)
        again = {number: distributions[place + 1] for number, place in enumerate(drawn, 1)}
        assert error == pytest.approx(accuracy_and_ece(again, records_with(*emotions[drawn]))["ece"], abs=1e-12)


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
