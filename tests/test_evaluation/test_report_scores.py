"""The report's scores beside the caption metrics, against cases that are worked out by hand."""

import pytest

from utils.evaluation.text_diversity import self_bleu, text_diversity


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
