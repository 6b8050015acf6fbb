"""A model that says the same of every picture: told at each evaluation, as scores alone do not show it early."""

from collections import Counter
from collections.abc import Sequence

MOST_PICTURES, FEW_SENTENCES = 0.5, 0.05  # more than this share of the pictures, by at most this number per picture
FEWEST_PICTURES = 20  # below, repetition means little


def collapse_warning(explanations: Sequence[str]) -> str | None:
    """One line where few sentences serve most pictures, else None.

    That is: the most frequent sentences, one for each 20 pictures, are together those of more than half of the pictures.
    Capitals and blanks are not looked at. Fewer than 20 pictures are not judged.

    Args:
        explanations: one for each picture.
    """
    pictures = len(explanations)
    if pictures < FEWEST_PICTURES:
        return None
    counts = Counter(" ".join(text.lower().split()) for text in explanations)
    ranking = counts.most_common(int(FEW_SENTENCES * pictures))
    served = sum(count for _, count in ranking)
    if served <= MOST_PICTURES * pictures:
        return None
    sentence, count = ranking[0]
    return (
        f"WARNING: the explanations have collapsed: {len(ranking)} {'sentence serves' if len(ranking) == 1 else 'sentences serve'} "
        f"{served / pictures:.0%} of {pictures} pictures; {len(counts) / pictures:.0%} of all are distinct; the most frequent, "
        f"of {count / pictures:.0%}, is {sentence[:80]!r}"
    )
