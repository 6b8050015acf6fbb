"""Diversity, novelty and the warning of a collapse, against cases that are worked out by hand and plain computations."""

import math
import random

import pytest
from pycocoevalcap.rouge.rouge import my_lcs

from utils.evaluation.text_metrics import collapse_warning, max_lcs, self_bleu, text_diversity


def test_diversity():
    texts = ["The sky looks  like fire", "the sky looks like fire", "a dog", "this is likely nothing"]
    scores = text_diversity(texts, [])
    assert scores["Unique"] == 3 / 4
    assert scores["metaphors"] == 3 / 4  # "is like" also stands in "is likely", as a search for the phrase finds it
    assert scores["mean_length"] == (5 + 5 + 2 + 4) / 4 and scores["distinct_words"] == 5 + 2 + 4
    scores = text_diversity(["The sky, the sky!", "a sky"], ["the blue sea", "It's a sky_line"])
    # 6 words: the sky the sky a sky; pairs: the sky, sky the, a sky
    assert scores["distinct_1"] == 3 / 6 and scores["distinct_2"] == 3 / 6
    assert scores["coverage"] == 3 / 7  # of the, blue, sea, it's, a, sky, line
    assert list(text_diversity([""], [])) == ["Unique", "metaphors", "mean_length", "distinct_words"]


def test_self_bleu():
    same = "a b c d e".split()
    assert self_bleu([same, same]) == pytest.approx(1)
    assert self_bleu([same, "f g h i j".split()]) == pytest.approx(0, abs=1e-9)
    # "a b c d e" against "a b c d d d": 4/5, 3/4, 2/3, 1/2, shorter by one word; the other way: 4/6, 3/5, 2/4, 1/3
    one = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * math.exp(1 - 6 / 5)
    other = (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert self_bleu([same, "a b c d d d".split()]) == pytest.approx((one + other) / 2)

    # five words between four and six: four is as close and shorter, so that no brevity penalty falls on them
    texts = [list("abcde"), list("abcdef"), list("abcd")]
    assert self_bleu(texts) == pytest.approx((1 + math.exp(1 - 5 / 4) + (1 / 3) ** 0.25) / 3, abs=1e-6)
    many = [[*"abcdefgh"[i % 5 :], str(i)] for i in range(40)]
    assert self_bleu(many, sample=10) == self_bleu(many, sample=10) != self_bleu(many)


# ---- novelty ---------------------------------------------------------------------------------------------------------


def test_max_lcs_by_hand():
    training = ["the dark sky scares me", "a b", "me me me"]
    assert max_lcs(["the sky looks dark and scares"], training) == [3]  # the, sky (or dark), scares
    assert max_lcs(["me", "me and me", "nothing here", "THE Dark", "", "me"], training) == [1, 2, 0, 2, 0, 1]


def test_max_lcs_is_pycocoevalcaps():
    draw = random.Random(0)
    words = [f"w{index}" for index in range(12)]
    training = [" ".join(draw.choices(words, k=draw.randint(1, 90))) for _ in range(30)]
    for _ in range(12):
        text = " ".join(draw.choices([*words, "unseen"], k=draw.randint(1, 80)))
        assert max_lcs([text], training) == [max(my_lcs(text.split(), other.split()) for other in training)]


def test_max_lcs_draws_a_seeded_sample():
    draw = random.Random(0)
    words = [f"w{index}" for index in range(300)]
    training = [" ".join(draw.choices(words, k=10)) for _ in range(2000)]
    texts = training[::100]
    assert set(max_lcs(texts, training)) == {10}
    scores = [sum(max_lcs(texts, training, sample=50, seed=seed)) for seed in (1, 1, 2, 3)]
    assert scores[0] == scores[1] < 200 and len(set(scores)) > 1


# ---- collapse --------------------------------------------------------------------------------------------------------


def texts(*counts: int, distinct: int = 0) -> list[str]:
    """As many explanations of each sentence as `counts` says, and others that occur once."""
    repeated = [f"sentence {number}" for number, count in enumerate(counts) for _ in range(count)]
    return repeated + [f"only once {number}" for number in range(distinct)]


def test_collapse():
    """Beyond half of the images, to one sentence for twenty of them."""
    for fine in (
        texts(10, 10, 10, 10, 10, distinct=50),
        texts(10, 10, 10, 10, 10, 10, distinct=40),  # six of them serve most, five do not
        ["the same"] * 19,
    ):
        assert collapse_warning(fine) is None
    assert collapse_warning(texts(11, 10, 10, 10, 10, 10, distinct=59)) is not None  # of 120 images six are few
    assert "1 sentence serves 100% of 20 images" in collapse_warning(["the same"] * 20)
    assert collapse_warning(["It is  Blue"] * 50 + ["it is blue"] * 10 + texts(distinct=40)) == (
        "WARNING: the explanations have collapsed: 5 sentences serve 64% of 100 images; 41% of all are distinct; the most "
        "frequent, of 60%, is 'it is blue'"
    )
