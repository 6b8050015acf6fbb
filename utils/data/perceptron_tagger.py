"""NLTK's part-of-speech tagger for the tokens of one vocabulary: the same tags, for many texts at a time.

NLTK's averaged perceptron tags a text from left to right. A word of its tag dictionary has that tag. Any other word gets
the tag with the highest score; of equal scores, the tag that is last in the alphabet. A score is the sum of the weights
of 14 features:

    bias, the word's last three letters, its first letter;                        of the word: one table row per token
    the tag before, the one before that, both together;                           of two tags: small tables
    the word, with the tag before, the word before and its last three letters,
    the second word before, the next word and its last three letters, the second next word

The words here are tokens of a fixed vocabulary, so that every feature is an entry of a table: nothing is spelled out at
run time. All texts are tagged together, one position after the other. The weights are added in float64 and in
NLTK's order, so that scores, ties and tags are NLTK's, not only close to them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import print_once

if TYPE_CHECKING:  # it takes a second to load
    from nltk.tag.perceptron import PerceptronTagger

START, END = ("-START-", "-START2-"), ("-END-", "-END2-")


def normalize(word: str) -> str:
    """A word as NLTK's features of words have it."""
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    if word[:1].isdigit():
        return "!DIGITS"
    return word.lower()


def vocabulary_tagger(nltk_tagger: "PerceptronTagger", tokens: Sequence[str]) -> "VocabularyTagger | NLTKTagger":
    """The tagger of NLTK's loaded data over the words `tokens`, none empty.

    NLTK's own tagger, where random sequences of the tokens show that it does not have the features that are known here.
    """
    tagger = VocabularyTagger(nltk_tagger.model.weights, nltk_tagger.tagdict, nltk_tagger.classes, tokens)
    slow = NLTKTagger(nltk_tagger, tokens)
    sample = np.random.default_rng(0).integers(len(tokens), size=(4, 100))
    if [[tagger.tags[tag] for tag in row] for row in tagger(sample)] == slow.tag_names(sample):
        return tagger
    print_once("NLTK's tagger has other features than this program knows: NLTK itself tags, some twenty times slower")
    return slow


class VocabularyTagger:
    """Token ids [N, L] -> places in `tags` [N, L]: the tags that NLTK gives to each row's tokens.

    Args:
        weights: feature -> {tag: weight}; tag_dictionary: word -> its only tag; classes: the tags to choose from. These
            are the contents of NLTK's three data files.
        tokens: the V words of the vocabulary, none empty.

    Attributes:
        tags: the tags' names.
    """

    def __init__(
        self,
        weights: Mapping[str, Mapping[str, float]],
        tag_dictionary: Mapping[str, str],
        classes: Iterable[str],
        tokens: Sequence[str],
    ):
        self._classes = sorted(classes)
        others = {*tag_dictionary.values(), *START} - {*self._classes}
        self.tags = [*self._classes, *sorted(others)]
        self._place = {tag: place for place, tag in enumerate(self.tags)}
        dictionary = [self._place[tag_dictionary[token]] if token in tag_dictionary else -1 for token in tokens]
        self._only_tag = np.array(dictionary, np.int16)

        words = [normalize(token) for token in tokens]
        distinct = {word: place for place, word in enumerate(dict.fromkeys((*START, *END, *words)))}
        self._word = np.array([distinct[word] for word in words], np.int32)
        self._start, self._end = ([distinct[word] for word in ends] for ends in (START, END))

        rows: list[np.ndarray] = [np.zeros(len(self._classes))]  # of all features; row 0 for those without weights
        row_of: dict[str, int] = {}

        def row(feature: str) -> int:
            if feature not in row_of:
                of_tags = weights.get(feature)
                if of_tags is not None:
                    rows.append(np.array([of_tags.get(tag, 0.0) for tag in self._classes]))
                row_of[feature] = 0 if of_tags is None else len(rows) - 1
            return row_of[feature]

        def places(name: str, values: Iterable[str]) -> np.ndarray:
            return np.array([row(f"{name} {value}") for value in values], np.int32)

        bias, suffixes = row("bias"), places("i suffix", (token[-3:] for token in tokens))
        letters = places("i pref1", (token[:1] for token in tokens))
        self._around = [  # in NLTK's order: place relative to the word, row of each distinct word
            (-1, places("i-1 word", distinct)),
            (-1, places("i-1 suffix", (word[-3:] for word in distinct))),
            (-2, places("i-2 word", distinct)),
            (1, places("i+1 word", distinct)),
            (1, places("i+1 suffix", (word[-3:] for word in distinct))),
            (2, places("i+2 word", distinct)),
        ]
        self._of_word = places("i word", distinct)
        before, second = places("i-1 tag", self.tags), places("i-2 tag", self.tags)
        both = np.array([places("i tag+i-2 tag", (f"{tag} {other}" for other in self.tags)) for tag in self.tags])
        self._tag_and_word = np.zeros((len(self.tags), len(distinct)), np.int32)
        name = "i-1 tag+i word "
        for feature in weights:
            if feature.startswith(name):
                tag, _, word = feature[len(name) :].partition(" ")
                if tag in self._place and word in distinct:
                    self._tag_and_word[self._place[tag], distinct[word]] = row(feature)
        self._rows = np.array(rows)
        self._of_token = self._rows[bias] + self._rows[suffixes] + self._rows[letters]
        self._before, self._second, self._both = self._rows[before], self._rows[second], self._rows[both]

    def __call__(self, ids: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Tag texts.

        Args:
            ids: token ids [N, L].
            known: the tags of each text's first K tokens, [N, K], which are not computed again.

        Returns:
            Places in `tags`, int16 [N, L].
        """
        texts, length = ids.shape
        known = np.empty((texts, 0), np.int16) if known is None else known
        words = np.empty((texts, length + 4), np.int32)
        words[:, :2], words[:, 2:-2], words[:, -2:] = self._start, self._word[ids], self._end
        tags = np.empty((texts, length + 2), np.int16)  # before the first word stand two marks
        tags[:, :2] = [self._place[START[1]], self._place[START[0]]]
        tags[:, 2:], tags[:, 2 : 2 + known.shape[1]] = self._only_tag[ids], known
        for position in range(known.shape[1], length):
            unknown = np.flatnonzero(tags[:, position + 2] < 0)
            if len(unknown):
                tags[unknown, position + 2] = self._best(
                    ids[unknown, position],
                    words[unknown, position : position + 5],
                    tags[unknown, position + 1],
                    tags[unknown, position],
                )
        return tags[:, 2:]

    def _best(self, token: np.ndarray, words: np.ndarray, before: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The tags with the highest scores. words: [n, 5], the word in the middle; before, second: tags."""
        scores = self._of_token[token]
        scores += self._before[before]
        scores += self._second[second]
        scores += self._both[before, second]
        scores += self._rows[self._of_word[words[:, 2]]]
        scores += self._rows[self._tag_and_word[before, words[:, 2]]]
        for offset, row_of_word in self._around:
            scores += self._rows[row_of_word[words[:, 2 + offset]]]
        return len(self._classes) - 1 - scores[:, ::-1].argmax(axis=1)  # of equal scores the last class


class NLTKTagger:
    """NLTK's own tagger with the interface of `VocabularyTagger`."""

    def __init__(self, nltk_tagger: "PerceptronTagger", tokens: Sequence[str]):
        self._tagger, self._tokens = nltk_tagger, tokens
        self.tags = sorted({*nltk_tagger.classes, *nltk_tagger.tagdict.values()})

    def __call__(self, ids: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        rows = [[self.tags.index(tag) for tag in row] for row in self.tag_names(ids)]
        return np.array(rows, np.int16).reshape(ids.shape)

    def tag_names(self, ids: np.ndarray) -> list[list[str]]:
        return [[tag for _, tag in self._tagger.tag([self._tokens[token] for token in row])] for row in ids]
