"""Precision, recall and F1 of the named emotions, beside scikit-learn's, and their intervals and tables."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from utils.constants import EMOTIONS
from utils.evaluation.emotion_metrics import confusion_matrix, emotion_counts, f1_scores
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.image_scores import image_scores, intervals
from utils.evaluation.tables import write_report

OTHER = 9


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


def test_as_scikit_learn(case):
    records, captions, answers, named = case
    found = f1_scores(np.sum(list(emotion_counts(captions, records).values()), axis=0))
    expected = precision_recall_fscore_support(answers, named, labels=range(9), zero_division=0)
    for name, values in zip(("precision", "recall", "F1"), expected, strict=False):
        assert found[name] == pytest.approx(values, abs=1e-12)
    present = sorted(set(answers.tolist()))
    assert len(present) == 7
    for mean in ("macro", "weighted"):
        value = f1_score(answers, named, labels=present, average=mean, zero_division=0)
        assert found[f"{mean}_F1"] == pytest.approx(value, abs=1e-12)


def test_counts_are_those_of_the_confusion_matrix(case):
    records, captions, *_ = case
    sums = np.sum(list(emotion_counts(captions, records).values()), axis=0)
    matrix = confusion_matrix(captions, records)
    assert sums.tolist() == [*matrix.sum(axis=1), *matrix[:, :9].sum(axis=0), *matrix.diagonal()]


def test_an_image_without_a_caption_is_missed():
    records = {"1": {"origin_emotion_distribution": [1, *[0] * 8]}, "2": {"origin_emotion_distribution": [1, *[0] * 8]}}
    found = f1_scores(np.sum(list(emotion_counts({1: "amusement because x"}, records).values()), axis=0))
    assert (found["precision"][0], found["recall"][0], found["macro_F1"]) == (1, 0.5, pytest.approx(2 / 3))


def test_report_has_means_intervals_and_a_table(case, tmp_path):
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
