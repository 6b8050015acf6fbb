"""Emotion metrics against hand-computed values and the reference accuracy."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.evaluation.emotion_metrics import (
    confusion_matrix,
    diversity,
    emotion_accuracy,
    emotion_alignment,
    max_lcs,
    named_emotion,
)

GOLDEN = Path(__file__).parents[1] / "data/golden/emotion_accuracy"
CASES = json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))


def records_with(*dominant: str | None) -> dict:
    """Images 1, 2, ... with these dominant emotions."""
    shares = {}
    for image, emotion in enumerate(dominant, start=1):
        distribution = [1 / 9] * 9 if emotion is None else [0.4 / 8] * 9
        if emotion is not None:
            distribution[EMOTIONS.index(emotion)] = 0.6
        shares[str(image)] = {"origin_emotion_distribution": distribution}
    return shares


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_accuracy_is_the_references(case):
    records = read_records(GOLDEN / "records.json")
    records = {image: records[image] for image in case["record_ids"]}
    captions = {prediction["image_id"]: prediction["caption"] for prediction in case["predictions"]}
    assert emotion_accuracy(captions, records, published=True) == (case["accuracy"], case["n_dominant"])
    assert emotion_accuracy(captions, records) == (max(case["accuracy"], 0), case["n_dominant"])
    counts = confusion_matrix(captions, records)
    assert counts.shape == (9, 10) and counts.sum() == case["n_dominant"]
    assert np.trace(counts) == max(case["accuracy"], 0) * case["n_dominant"]


def test_the_share_must_be_above_one_half():
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


def test_confusion_matrix():
    records = records_with("awe", "awe", "fear", "something else", None, "fear")
    captions = {1: "awe because", 2: "fear because", 3: "Fear because", 4: "something else", 5: "awe because", 9: "awe"}
    counts = confusion_matrix(captions, records)
    expected = np.zeros((9, 10), dtype=int)
    expected[1, 1] = expected[1, 6] = expected[8, 8] = 1
    expected[6, 9] = 2  # "Fear" is no emotion's name, and image 6 has no caption
    assert counts.tolist() == expected.tolist()


def test_emotion_alignment():
    votes = {
        1: ["awe", "awe", "fear"],  # two thirds
        2: ["awe", "awe", "fear", "sadness"],  # half, nothing else as many
        3: ["awe", "fear"],  # a tie
        4: ["fear"],
        5: ["awe", "fear", "sadness"],  # below half
        6: ["anger", "anger", "anger", "awe"],  # no explanation
        7: [],
    }
    predicted = {1: "awe", 2: "awe", 3: "awe", 4: "awe", 5: "awe", 7: "awe", 99: "awe"}
    assert emotion_alignment(predicted, votes, "a judge") == {
        "judge": "a judge",
        "EA_more_than_half": 1 / 3,
        "EA_more_than_half_images": 3,
        "EA_at_least_half": 2 / 4,
        "EA_at_least_half_images": 4,
    }
    assert emotion_alignment({}, {}, "a judge")["EA_more_than_half"] == 0.0


def test_diversity():
    texts = ["The sky looks  like fire", "the sky looks like fire", "a dog", "this is likely nothing"]
    assert diversity(texts) == {
        "Unique": 3 / 4,
        "metaphors": 3 / 4,  # "is like" also stands in "is likely", as a search for the phrase finds it
        "mean_length": (5 + 5 + 2 + 4) / 4,
        "distinct_words": 5 + 2 + 4,
    }
    assert diversity([]) == {"Unique": 0.0, "metaphors": 0.0, "mean_length": 0.0, "distinct_words": 0}


def lcs(a: list[str], b: list[str]) -> int:
    """The textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, word in enumerate(a):
        for j, other in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if word == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_max_lcs_by_hand():
    training = ["the dark sky scares me", "a b", "me me me"]
    assert max_lcs(["the sky looks dark and scares"], training) == [3]  # the, sky (or dark), scares
    assert max_lcs(["me"], training) == [1]
    assert max_lcs(["me and me", "nothing here"], training) == [2, 0]
    assert max_lcs(["THE Dark"], training) == [2]
    assert max_lcs([], training) == [] and max_lcs(["a"], []) == max_lcs(["a"], ["", "  "]) == [0]
    assert max_lcs([""], training) == [0]


def test_max_lcs_equals_the_table():
    draw = random.Random(0)
    words = [f"w{index}" for index in range(12)]
    training = [" ".join(draw.choices(words, k=draw.randint(1, 90))) for _ in range(60)]
    for _ in range(40):
        text = " ".join(draw.choices([*words, "unseen"], k=draw.randint(1, 80)))
        assert max_lcs([text], training) == [max(lcs(text.split(), other.split()) for other in training)]


def test_max_lcs_sample_is_seeded():
    draw = random.Random(0)
    words = [f"w{index}" for index in range(300)]
    training = [" ".join(draw.choices(words, k=10)) for _ in range(2000)]
    texts = training[::100]
    assert set(max_lcs(texts, training, sample=0)) == {10}
    scores = [sum(max_lcs(texts, training, sample=50, seed=seed)) for seed in (1, 1, 2, 3)]
    assert scores[0] == scores[1] < 200 and len(set(scores)) > 1


def test_no_torch():
    code = "import sys, utils.evaluation.emotion_metrics, utils.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
