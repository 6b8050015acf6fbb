"""Texts that are tokenized together have the tokens that they have alone."""

import random

import pytest
from nltk.tokenize import NLTKWordTokenizer

from preprocess.artemis_text import tokenize, tokenize_all

# what NLTK's rules look at
PARTS = [*"''\"\" \t\n\xa0`()&«»“”‘’a", "''", "``", "foo", "'s", "'re", "n't", " 'tis", "d'ye", "wanna", "cannot", "é"]


def test_texts_are_tokenized_together_as_alone():
    choose = random.Random(3).choices
    texts = ["", *("".join(choose(PARTS, k=1 + n % 9)) for n in range(1000))]
    assert tokenize_all(texts) == [" ".join(tokenize(text)) for text in texts]


@pytest.mark.parametrize(
    "text", ['"the sky" is', "''the sky'' is", "\"'the sky'\"", "' the foxes'", '"`sea', "sky's'", '"']
)
def test_quotes_at_a_texts_ends_are_split_as_by_nltk(text):
    assert tokenize_all(["sea", text, "sea"])[1].split() == NLTKWordTokenizer().tokenize(text)
