"""CIDEr (CIDEr-D) as in pycocoevalcap 1.2; document frequencies come from the references of the scored images."""

import numpy as np

from cococaption.references import MAX_N, Counts, References, find, pack
from utils.errors import InputError

SIGMA = 6.0


def cider(references: References, counts: list[Counts], lengths: np.ndarray) -> np.ndarray:
    """CIDEr of every image, float64 [I] in [0, 10]; the corpus score is the mean.

    Args:
        references: references of I images.
        counts: n-gram counts of the I candidates for n = 1..4, numbered by `references.numbering`.
        lengths: words per candidate, int64 [I].

    Raises:
        InputError: no reference contains a word (pycocoevalcap fails with a ValueError).
    """
    if not references.lengths.any():
        raise InputError("CIDEr: the references of the scored images contain no words; score against other references")
    similarity = np.zeros(len(references.lengths))  # per reference, summed over n
    for n, candidate in enumerate(counts):
        # as in pycocoevalcap, an n-gram in no reference gets the document frequency 1, so its idf is log(I)
        idf = np.append(references.idf[n], references.log_images)
        weight = candidate.count * idf[np.minimum(candidate.gram, len(idf) - 1)]
        norm = np.sqrt(np.bincount(candidate.text, weight**2, minlength=len(lengths)))

        reference = references.counts[n]
        place, found = find(
            pack(references.image[reference.text], reference.gram), pack(candidate.text, candidate.gram)
        )
        reference_weight = references.weights[n][found]
        product = np.minimum(weight[place[found]], reference_weight) * reference_weight
        dot = np.bincount(reference.text[found], product, minlength=len(similarity))
        norms = norm[references.image] * references.norms[n]
        similarity += np.divide(dot, norms, out=np.zeros(len(norms)), where=norms != 0)
    # pycocoevalcap uses the number of bigrams as length. The difference of two lengths is the same in words and in
    # bigrams, except for an empty text, whose similarity is 0 anyway.
    difference = lengths[references.image] - references.lengths
    similarity *= np.e ** (-(difference**2) / (2 * SIGMA**2))
    per_image = np.bincount(references.image, similarity, minlength=len(lengths))
    return per_image / MAX_N / references.per_image * 10.0
