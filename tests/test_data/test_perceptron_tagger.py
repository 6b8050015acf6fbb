"""The tagger over a vocabulary gives NLTK's own tags: random weights, ties, words of the tag dictionary, odd tokens."""

import random

import numpy as np
import pytest

from utils.data.perceptron_tagger import VocabularyTagger, vocabulary_tagger

nltk = pytest.importorskip("nltk")

TAGS = ["NN", "NNS", "VB", "VBZ", "JJ", "``", "-LRB-"]
TOKENS = ["sky", "Sky", "skies", "paint", "painted", "x-ray", "-", "-x", "1984", "84", "7th", "²", "éé", "É", " "]
TOKENS += ["ING", "ing", "the", "The", "<pad>", "Ġ", "a b", "ß", "İ", "12345", "¹²³⁴"]
MARKS = ["!HYPHEN", "!YEAR", "!DIGITS", "-START-", "-START2-", "-END-", "-END2-"]


def random_weights(draw: random.Random) -> dict[str, dict[str, float]]:
    """Weights in halves, so that scores are often equal, for features of every kind; some for tags of no class."""
    words = [*(token.lower() for token in TOKENS), *MARKS]
    tags = [*TAGS, "DT", "-START-", "-START2-"]
    features = ["bias", *(f"i suffix {token[-3:]}" for token in TOKENS), *(f"i pref1 {token[:1]}" for token in TOKENS)]
    features += [f"{name} {tag}" for name in ("i-1 tag", "i-2 tag") for tag in tags]
    features += [f"i tag+i-2 tag {tag} {other}" for tag in tags for other in tags]
    features += [f"i-1 tag+i word {tag} {word}" for tag in tags for word in words]
    for name in ("i word", "i-1 word", "i-2 word", "i+1 word", "i+2 word"):
        features += [f"{name} {word}" for word in words]
    features += [f"{name} {word[-3:]}" for name in ("i-1 suffix", "i+1 suffix") for word in words]
    chosen = draw.sample(features, len(features) // 2)
    return {
        feature: {tag: draw.randint(-4, 4) / 2 for tag in draw.sample([*TAGS, "FW"], draw.randint(1, 5))}
        for feature in chosen
    }


def nltk_tags(weights: dict, dictionary: dict, texts: np.ndarray) -> list[list[str]]:
    tagger = nltk.tag.perceptron.PerceptronTagger(load=False)
    tagger.decode_json_params((weights, dictionary, TAGS))
    return [[tag for _, tag in tagger.tag([TOKENS[token] for token in text])] for text in texts]


@pytest.mark.parametrize("seed", range(4))
def test_tags_are_nltks(seed):
    draw = random.Random(seed)
    weights, dictionary = random_weights(draw), {"the": "DT", "The": "DT", "sky": "NN", "2": "CD"}
    if seed == 3:  # weights that no float holds exactly: only NLTK's order of adding gives NLTK's scores
        weights = {name: {tag: draw.gauss(0, 1) for tag in of_tags} for name, of_tags in weights.items()}
    ids = np.random.default_rng(seed).integers(len(TOKENS), size=(1000, 9))
    tagger = VocabularyTagger(weights, dictionary, TAGS, TOKENS)
    found = [[tagger.tags[place] for place in row] for row in tagger(ids)]
    assert found == nltk_tags(weights, dictionary, ids)
    assert len({tag for row in found for tag in row}) == len(TAGS) + 1  # every class, and the dictionary's DT


def test_no_texts():
    tagger = VocabularyTagger({}, {}, TAGS, ["sky"])
    assert tagger(np.zeros((0, 5), int)).shape == (0, 5) and tagger(np.zeros((2, 0), int)).shape == (2, 0)


def test_features_of_another_nltk_are_left_to_nltk(monkeypatch, capsys):
    """A feature that the tables do not have changes tags: NLTK itself tags, and a line says so."""
    tagger = nltk.tag.perceptron.PerceptronTagger(load=False)
    tagger.decode_json_params(({"i word sky": {"NN": 1.0}, "length 3": {"VB": 2.0}}, {}, TAGS))
    tokens, ids = ["sky", "paint", "boats"], np.array([[0, 1, 0], [2, 2, 1]])
    plain = vocabulary_tagger(tagger, tokens)
    assert isinstance(plain, VocabularyTagger) and not capsys.readouterr().out
    features = type(tagger)._get_features

    def with_length(self, i, word, *more):
        return features(self, i, word, *more) | {f"length {len(word)}": 1}

    monkeypatch.setattr(type(tagger), "_get_features", with_length)
    found = vocabulary_tagger(tagger, tokens)
    assert "NLTK itself tags" in capsys.readouterr().out
    names = [[found.tags[place] for place in row] for row in found(ids)]
    assert names == found.tag_names(ids) and names[0] == ["VB", max(TAGS), "VB"]
    assert [plain.tags[place] for place in plain(ids)[0]] == ["NN", max(TAGS), "NN"]
