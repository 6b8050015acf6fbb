"""Accuracy and calibration of a distribution over the nine emotions."""

import numpy as np
import pytest

from tests.test_evaluation.test_emotion_metrics import records_with
from utils.evaluation.bootstrap import ImageScores, resampled_weights
from utils.evaluation.emotion_metrics import accuracy_and_ece, calibration_of_images


def shares_of(*rows: dict[int, float]) -> dict[int, list[float]]:
    return {image: [row.get(label, 0.0) for label in range(9)] for image, row in enumerate(rows, 1)}


# right, bin ]13/15, 14/15]; wrong, the same bin; right, another bin; no dominant emotion
FOUR = shares_of({1: 0.9, 0: 0.1}, {0: 0.91, 1: 0.09}, {6: 0.6, 0: 0.4}, {0: 1.0})


def test_by_hand():
    records = records_with("awe", "awe", "fear", None)
    scores = accuracy_and_ece(FOUR, records)
    assert scores["acc"] == pytest.approx(2 / 3)
    assert scores["ece"] == pytest.approx((2 * abs(0.5 - 0.905) + abs(1 - 0.6)) / 3)
    assert accuracy_and_ece({image: FOUR[image] for image in (3, 1, 4, 2)}, records) == pytest.approx(scores)
    one_bin = accuracy_and_ece(FOUR, records, bins=1)
    assert one_bin["ece"] == pytest.approx(abs(2 / 3 - (0.9 + 0.91 + 0.6) / 3))
    none = {"acc": 0.0, "ece": 0.0}
    assert accuracy_and_ece({4: FOUR[4]}, records) == none == accuracy_and_ece({}, records)


@pytest.mark.parametrize("bad", [[1 / 8] * 8, [1.0] * 9, [2.0, -1.0] + [0.0] * 7])
def test_what_is_no_distribution_is_refused(bad):
    with pytest.raises(ValueError, match="distribution"):
        accuracy_and_ece({1: bad}, records_with("awe"))


def test_resampling_sums_is_rescoring_the_drawn_images():
    """The error of a sample, from the sums, is that of the same images scored anew under numbers of their own."""
    draw = np.random.default_rng(0)
    emotions = [("awe", "fear", "sadness", None)[index] for index in draw.integers(4, size=60)]
    shares = {image: row.tolist() for image, row in enumerate(draw.dirichlet(np.full(9, 0.2), size=60), 1)}
    right, rows = calibration_of_images(shares, records_with(*emotions))
    nothing = [0.0] * 16
    scores = ImageScores(
        list(shares),
        {"head_acc": np.array([float(right.get(image, np.nan)) for image in shares])},
        {"head_ece": np.array([rows.get(image, nothing) for image in shares])},
    )
    weights = resampled_weights(60, resamples=5)
    found = scores.scores(weights)
    for sample, counts in enumerate(weights.astype(int).tolist()):
        drawn = [place for place, count in enumerate(counts) for _ in range(count)]
        again = {number: shares[place + 1] for number, place in enumerate(drawn, 1)}
        expected = accuracy_and_ece(again, records_with(*(emotions[place] for place in drawn)))
        assert found["head_ece"][sample] == pytest.approx(expected["ece"], abs=1e-12)
        assert found["head_acc"][sample] == pytest.approx(expected["acc"], abs=1e-12)
