"""CIDEr (CIDEr-D) as in pycocoevalcap 1.2; document frequencies come from the references of the images scored."""

import numpy as np

from cococaption.ngrams import MAX_N, Counts, find, pack
from cococaption.references import References
from utils.errors import InputError

SIGMA = 6.0


def cider(references: References, counts: list[Counts], lengths: np.ndarray) -> np.ndarray:
    """CIDEr of every image, float64 [I] in [0, 10]; the corpus score is the mean.

    Args:
        references: those of I images.
        counts: of the I candidates, numbered by `references.numbering`, for n = 1..4.
        lengths: words per candidate, int64 [I].

    Raises:
        InputError: no reference holds a word (pycocoevalcap stops at the maximum of nothing).
    """
    if not references.lengths.any():
        raise InputError("CIDEr: the references of the images scored hold no word; score against other references")
    similarity = np.zeros(len(references.lengths))  # of every reference, summed over n
    for n, candidate in enumerate(counts):
        # an n-gram that no reference holds counts as if one image did: its weight is the whole log(I)
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
    # pycocoevalcap takes the number of word pairs for the length; the difference is that of the words, except beside an
    # empty text, whose similarity is 0
    difference = lengths[references.image] - references.lengths
    similarity *= np.e ** (-(difference**2) / (2 * SIGMA**2))
    per_image = np.bincount(references.image, similarity, minlength=len(lengths))
    return per_image / MAX_N / references.per_image * 10.0
