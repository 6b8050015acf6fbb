"""ROUGE-L as in pycocoevalcap 1.2, with a bit-parallel longest common subsequence."""

from collections.abc import Sequence

BETA = 1.2


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L of one tokenised candidate: F-measure of the best precision and the best recall over its references.

    Returns a value in [0, 1]. As in pycocoevalcap, texts are split at single spaces, so that an empty text is one empty
    word and matches another empty text.
    """
    words = candidate.split(" ")
    places: dict[str, int] = {}  # word -> bit set of its positions in the candidate
    for position, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << position
    precision = recall = 0.0
    for reference in references:
        reference_words = reference.split(" ")
        common = _common(reference_words, places, len(words))
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(reference_words))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(words: list[str], places: dict[str, int], length: int) -> int:
    """Length of the longest common subsequence (Hyyrö 2004): a zero bit marks where a row of the table steps up."""
    every = (1 << length) - 1
    row = every
    for word in words:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & every
    return length - row.bit_count()
