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
    named_emotion,
    vad_distances,
)
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.image_scores import ImageScores, image_scores, intervals, resampled_weights
from utils.evaluation.tables import write_report


def records_with(*dominant: str | None) -> dict:
    """Images 1, 2, ... with these dominant emotions."""
    records = {}
    for image, emotion in enumerate(dominant, start=1):
        distribution = [1 / 9] * 9 if emotion is None else [0.4 / 8] * 9
        if emotion is not None:
            distribution[EMOTIONS.index(emotion)] = 0.6
        records[str(image)] = {"origin_emotion_distribution": distribution}
    return records


def test_named_emotion():
    for caption, emotion in (
        ("awe because a because b", "awe"),
        (" something else  because", "something else"),
        ("Awe", "Awe"),
        ("because awe", ""),
    ):
        assert named_emotion(caption) == emotion


def test_confusion_matrix():
    records = records_with("awe", "awe", "fear", "something else", None, "fear")
    captions = {1: "awe because", 2: "fear because", 3: "Fear because", 4: "something else", 5: "awe because", 9: "awe"}
    expected = np.zeros((9, 10), dtype=int)
    expected[1, 1] = expected[1, 6] = expected[8, 8] = 1
    expected[6, 9] = 2  # "Fear" is no emotion's name, and image 6 has no caption
    assert confusion_matrix(captions, records).tolist() == expected.tolist()
    assert emotion_accuracy(captions, records) == (np.trace(expected) / expected.sum(), expected.sum())
    records["1"]["origin_emotion_distribution"] = [0.5, 0.5] + [0] * 7  # half of the votes are not a majority
    assert emotion_accuracy(captions, records)[1] == expected.sum() - 1


# ---- precision, recall and F1 of the named emotions -------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    """300 images of unbalanced emotions, the last two of which none has; three without a majority; and their captions."""
    draw = np.random.default_rng(4)
    answers = draw.choice(9, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0, 0])
    named = np.where(draw.random(300) < 0.6, answers, draw.integers(10, size=300))
    records = {
        str(image): {"origin_emotion_distribution": np.eye(9)[answer].tolist(), "image_name": f"{image}.jpg"}
        for image, answer in enumerate(answers)
    }
    captions = {image: f"{(*EMOTIONS, 'joy')[name]} because of it" for image, name in enumerate(named)}
    for image in (300, 301, 302):
        records[str(image)] = {"origin_emotion_distribution": [0.5, 0.5] + [0] * 7, "image_name": f"{image}.jpg"}
        captions[image] = "awe because of it"
    return records, captions, answers, named


def test_f1_as_scikit_learn(case):
    records, captions, answers, named = case
    sums = np.sum(list(emotion_counts(captions, records).values()), axis=0)
    found, matrix = f1_scores(sums), confusion_matrix(captions, records)
    assert sums.tolist() == [*matrix.sum(axis=1), *matrix[:, :9].sum(axis=0), *matrix.diagonal()]
    expected = precision_recall_fscore_support(answers, named, labels=range(9), zero_division=0)
    for name, values in zip(("precision", "recall", "F1"), expected, strict=False):
        assert found[name] == pytest.approx(values, abs=1e-12)
    present = sorted(set(answers.tolist()))
    assert len(present) == 7
    for mean in ("macro", "weighted"):
        value = f1_score(answers, named, labels=present, average=mean, zero_division=0)
        assert found[f"{mean}_F1"] == pytest.approx(value, abs=1e-12)


def test_an_image_without_a_caption_is_missed():
    records = records_with("amusement", "amusement")
    found = f1_scores(np.sum(list(emotion_counts({1: "amusement because x"}, records).values()), axis=0))
    assert (found["precision"][0], found["recall"][0], found["macro_F1"]) == (1, 0.5, pytest.approx(2 / 3))


def test_report_has_means_of_f1_intervals_and_a_table(case, tmp_path):
    records, captions, answers, _ = case
    texts = dict.fromkeys(captions, "it")
    scores = image_scores(Evaluation(captions, texts, {}, {}), records)
    whole = {name: float(values[0]) for name, values in scores.scores(np.ones((1, 303))).items()}
    low, high = intervals(scores)["macro_F1"]
    assert low < whole["macro_F1"] < high and high - low < 0.25
    table = scores.emotion_table()
    assert list(table) == list(EMOTIONS)  # the last two are named, though no image's
    awe, none = table["awe"], table[EMOTIONS[8]]
    assert awe["images"] == int((answers == 1).sum()) > 30
    assert awe["interval"][0] < awe["F1"] < awe["interval"][1]
    assert (none["images"], none["recall"], none["F1"]) == (0, 0, 0)
    report = {"scores": whole, "test_set": None, "emotions": table}
    printed = write_report(tmp_path, report)
    text = (tmp_path / "report.md").read_text()
    assert "macro F1" in printed and "weighted F1" in printed and "- emotions" not in printed
    assert f"| {100 * awe['precision']:9.1f} |" in text
    assert f"{100 * awe['interval'][1]:.1f} |" in text


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
