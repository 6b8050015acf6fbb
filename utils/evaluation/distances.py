"""Distances to what the annotators said, image by image: words in VAD space, and the shares of the nine emotions."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from utils.data.records import Records
from utils.evaluation.text_diversity import words_of

TINY = 1e-12  # keeps KL finite where the head rules out an emotion that an annotator felt

VAD = Mapping[str, tuple[float, float, float]]


def vad_distances(
    explanations: Mapping[int, str], references: Mapping[int, Sequence[str]], lexicon: VAD
) -> dict[int, float]:
    """Euclidean distance of an explanation's mean VAD to that of its image's references, 0 .. 2 * sqrt(3).

    The mean is over the words that the lexicon knows as they are, in lower case; the references' words are taken
    together. Images where either side has no such word are left out.

    Args:
        explanations: image id -> text. references: image id -> texts. lexicon: word -> VAD in [-1, 1].
    """
    found = {}
    for image, text in explanations.items():
        said, meant = _mean_vad([text], lexicon), _mean_vad(references[image], lexicon)
        if said is not None and meant is not None:
            found[image] = float(np.linalg.norm(said - meant))
    return found


def _mean_vad(texts: Iterable[str], lexicon: VAD) -> np.ndarray | None:
    vectors = [lexicon[word] for text in texts for word in words_of(text) if word in lexicon]
    return np.mean(vectors, axis=0) if vectors else None


def head_distances(heads: Mapping[int, Sequence[float]], records: Records) -> dict[str, dict[int, float]]:
    """How far the emotion head's nine probabilities q are from the annotators' shares p.

    Args:
        heads: image id -> nine probabilities. records: the scored split.

    Returns:
        score -> image id -> value. head_KL: sum of p log(p / q), in nats, 0 or more; head_JS: Jensen-Shannon divergence
        (Lin, 1991) in bits, 0 .. 1; head_brier: sum of (p - q)^2, 0 .. 2 (Brier, 1950). 0 is best. Empty without heads.
    """
    if not heads:
        return {}
    q = np.array(list(heads.values()), np.float64)
    p = np.array([records[str(image)]["origin_emotion_distribution"] for image in heads], np.float64)
    middle = (p + q) / 2
    rows = {
        "head_KL": _kl(p, np.maximum(q, TINY)),
        "head_JS": (_kl(p, middle) + _kl(q, middle)) / (2 * np.log(2)),
        "head_brier": ((p - q) ** 2).sum(axis=1),
    }
    return {name: dict(zip(heads, row.tolist(), strict=True)) for name, row in rows.items()}


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of the rows, in nats; an entry where p is 0 counts as 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(axis=1)
