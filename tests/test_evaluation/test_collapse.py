"""The warning of a collapse begins just where few sentences serve most images."""

from utils.evaluation.text_metrics import collapse_warning


def texts(*counts: int, distinct: int = 0) -> list[str]:
    """So many explanations of each sentence, and others that are there once."""
    repeated = [f"sentence {number}" for number, count in enumerate(counts) for _ in range(count)]
    return repeated + [f"only once {number}" for number in range(distinct)]


def test_most_begins_beyond_half():
    assert collapse_warning(texts(10, 10, 10, 10, 10, distinct=50)) is None
    assert collapse_warning(texts(11, 10, 10, 10, 10, distinct=49)).startswith(
        "WARNING: the explanations have collapsed:"
    )


def test_few_is_one_sentence_for_twenty_pictures():
    assert collapse_warning(texts(10, 10, 10, 10, 10, 10, distinct=40)) is None  # six of them serve most, five do not
    assert collapse_warning(texts(11, 10, 10, 10, 10, 10, distinct=59)) is not None  # of 120 images six are few


def test_few_pictures_are_not_judged():
    assert collapse_warning(["the same"] * 19) is None and collapse_warning([]) is None
    assert "1 sentence serves 100% of 20 images" in collapse_warning(["the same"] * 20)


def test_what_it_says():
    assert collapse_warning(["It is  Blue"] * 30 + ["it is blue"] * 10 + texts(distinct=60)) is None  # 40 + 4 of 100
    line = collapse_warning(["It is  Blue"] * 50 + ["it is blue"] * 10 + texts(distinct=40))
    assert "5 sentences serve 64% of 100 images; 41% of all are distinct" in line
    assert line.endswith("the most frequent, of 60%, is 'it is blue'") and "\n" not in line
    assert "\x1b" not in collapse_warning(["red \x1b[31m"] * 40)
