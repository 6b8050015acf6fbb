"""Scores beside the caption metrics: which emotion a text names or conveys, and how various the texts are."""

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from utils.constants import BECAUSE, EMOTION_INDEX, EMOTIONS
from utils.data.records import Records, dominant_emotion
from utils.evaluation.text_metrics import words_of

# ---- Scores beside the caption metrics: which emotion a text names or conveys, and how various the texts -------------


METAPHORS = (
    "could be",
    "appears to be",
    "appear to be",
    "reminds me",
    "remind me",
    "seems like",
    "looks like",
    "look like",
    "is like",
    "are like",
    "think of",
    "resembles",
    "resembling",
)


def named_emotion(caption: str) -> str:
    """What a caption says the emotion is: the text before the first "because", stripped; compared as it is."""
    return caption.partition(BECAUSE)[0].strip()


def split_generated(full: str) -> tuple[str, str]:
    """Split a generated text into (emotion, explanation).

    The emotion is the text before the first "because", the explanation the text after the last; both are stripped.
    Without "because", the emotion is the whole text and the explanation starts at the third word.
    """
    emotion = full.split(BECAUSE)[0].strip()
    if BECAUSE in full:
        return emotion, full.split(BECAUSE)[-1].strip()
    return emotion, " ".join(full.split()[2:])


def emotion_accuracy(captions: Mapping[int, str], records: Records, published: bool = False) -> tuple[float, int]:
    """ACC (`sub_acc`): the share of images whose caption names the image's dominant emotion.

    Over the images where one emotion has more than half of the votes; one without a caption counts as wrong, captions
    of other images are ignored.

    Args:
        captions: image id -> caption, "<emotion> because <explanation>".
        records: the evaluated split, image id as a string -> record.
        published: give -1 in place of 0 when no caption is right, as the published code does.

    Returns:
        accuracy in 0 .. 1 (0.0 when there is no such image) and the number of images it rests on.
    """
    answers = dominant_emotions(records)
    correct = sum(image in captions and named_emotion(captions[image]) == answer for image, answer in answers.items())
    if not correct:
        return (-1.0 if published else 0.0), len(answers)
    return correct / len(answers), len(answers)


def dominant_emotions(records: Records) -> dict[int, str]:
    """Image id -> the emotion with more than half of the votes, of the images that have one: those that ACC rests on."""
    dominant = {int(image): dominant_emotion(r["origin_emotion_distribution"]) for image, r in records.items()}
    return {image: emotion for image, emotion in dominant.items() if emotion is not None}


def confusion_matrix(captions: Mapping[int, str], records: Records) -> np.ndarray:
    """Dominant emotion against the emotion that the caption names, over the images that ACC rests on.

    Returns:
        counts [9, 10], int64: rows are the dominant emotions, columns the named ones in the order of `EMOTIONS`, then
        other text (no emotion's name, or no caption). The sum of the diagonal over the sum of all is ACC.
    """
    counts = np.zeros((len(EMOTIONS), len(EMOTIONS) + 1), dtype=np.int64)
    for image, answer in dominant_emotions(records).items():
        column = EMOTION_INDEX.get(named_emotion(captions.get(image, "")), len(EMOTIONS))
        counts[EMOTION_INDEX[answer], column] += 1
    return counts


def emotion_alignment(
    predicted: Mapping[int, Hashable], votes: Mapping[int, Sequence[Hashable]], judge: str
) -> dict[str, str | float | int]:
    """EA: the share of images whose explanation conveys, to a text classifier, the emotion most annotators felt.

    Two definitions, as papers differ: over the images where one emotion has more than half of the votes, and ArtEmis'
    own, over those where one has at least half and no other as many. An image without a prediction counts as wrong.

    Args:
        predicted: image id -> the emotion that the judge finds in its explanation.
        votes: image id -> the annotators' emotions, in the same spelling (names or labels) as the predictions.
        judge: name of the classifier, which the scores mean nothing without.

    Returns:
        {"judge", "EA_more_than_half", "EA_more_than_half_images", "EA_at_least_half", "EA_at_least_half_images"};
        shares in 0 .. 1, 0.0 where no image counts.
    """
    more, least = (list(of.values()) for of in alignment_of_images(predicted, votes))
    return {
        "judge": judge,
        "EA_more_than_half": _mean(more),
        "EA_more_than_half_images": len(more),
        "EA_at_least_half": _mean(least),
        "EA_at_least_half_images": len(least),
    }


def alignment_of_images(
    predicted: Mapping[int, Hashable], votes: Mapping[int, Sequence[Hashable]]
) -> tuple[dict[int, bool], dict[int, bool]]:
    """Both definitions of `emotion_alignment`, image by image: image id -> whether the judge agrees, where it counts."""
    more, least = {}, {}
    for image, emotions in votes.items():
        ranking = Counter(emotions).most_common(2)
        if not ranking:
            continue
        emotion, count = ranking[0]
        right = predicted.get(image) == emotion
        if 2 * count > len(emotions):
            more[image] = right
        if 2 * count >= len(emotions) and (len(ranking) == 1 or ranking[1][1] < count):
            least[image] = right
    return more, least


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def diversity(explanations: Sequence[str]) -> dict[str, float | int]:
    """How various the explanations are.

    Returns:
        Unique: distinct / all explanations, 0 .. 1; metaphors: share that contains one of `METAPHORS` (anywhere, in
        lower case), 0 .. 1; mean_length: words between spaces; distinct_words: how many, in lower case. Zeros for an
        empty list.
    """
    texts = [" ".join(text.lower().split()) for text in explanations]
    words = [text.split() for text in texts]
    return {
        "Unique": len(set(texts)) / len(texts) if texts else 0.0,
        "metaphors": _mean([any(phrase in text for phrase in METAPHORS) for text in texts]),
        "mean_length": _mean([len(text) for text in words]),
        "distinct_words": len({word for text in words for word in text}),
    }


class _TextSample:
    """Texts laid behind one another as the bits of one integer, so that one sum advances the LCS with all of them.

    A text of n words takes n bits and a guard bit that catches its carry. The recurrence is the bit-parallel one of
    Hyyrö (2004): V starts as ones; for each word of the other text, with u = V & (places of that word),
    V = (V + u) | (V - u); in the end each 0 in a text's bits is one word of the longest common subsequence.
    """

    def __init__(self, texts: Iterable[str]):
        words = [text.lower().split() for text in texts]
        words = [text for text in words if text]
        lengths = np.array([len(text) for text in words], dtype=np.int64)
        self.starts = np.cumsum(lengths + 1) - lengths - 1
        self.lengths = lengths
        places: dict[str, list[int]] = {}
        for start, text in zip(self.starts.tolist(), words, strict=True):
            for place, word in enumerate(text, start):
                places.setdefault(word, []).append(place)
        self.size = int((lengths + 1).sum())
        self.places = places
        self.masks: dict[str, int] = {}
        self.text_bits = (1 << self.size) - 1 ^ self._integer((self.starts + lengths).tolist())

    def _integer(self, places: list[int]) -> int:
        bits = np.zeros(self.size, dtype=np.uint8)
        bits[places] = 1
        return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")

    def longest_common(self, text: str) -> int:
        """The longest common subsequence, in words, of `text` with any text of the sample."""
        bits = self.text_bits
        for word in text.lower().split():
            if word not in self.places:
                continue
            if word not in self.masks:
                self.masks[word] = self._integer(self.places[word])
            met = bits & self.masks[word]
            bits = ((bits + met) | (bits - met)) & self.text_bits
        raw = np.frombuffer(bits.to_bytes((self.size + 7) // 8, "little"), dtype=np.uint8)
        ones = np.add.reduceat(np.unpackbits(raw, count=self.size, bitorder="little"), self.starts, dtype=np.int64)
        return int((self.lengths - ones).max())


def max_lcs(
    explanations: Sequence[str], training_texts: Sequence[str], sample: int = 5000, seed: int = 2021
) -> list[int]:
    """Novelty: the longest common subsequence, in words, of each explanation with any of a sample of training texts.

    Args:
        explanations: the productions; words between spaces, in lower case.
        training_texts: all of them; `sample` (0: all) are drawn with `seed`, in the order given.

    Returns:
        one length for each explanation, in words; the score is their mean, and lower is more novel. Zeros where there is
        nothing to compare with.
    """
    texts = [text for text in training_texts if text.strip()]
    if 0 < sample < len(texts):
        texts = [texts[index] for index in sorted(random.Random(seed).sample(range(len(texts)), sample))]
    if not texts:
        return [0] * len(explanations)
    sampled = _TextSample(texts)
    found = {text: sampled.longest_common(text) for text in set(explanations)}
    return [found[text] for text in explanations]


# ---- Accuracy and calibration of a distribution over the nine emotions, such as the emotion head's -------------------


BINS = 15  # intervals of equal width on 0 .. 1 that the confidence (the largest share) is sorted into


def accuracy_and_ece(
    distributions: Mapping[int, Sequence[float]], records: Records, bins: int = BINS
) -> dict[str, float]:
    """Accuracy and calibration over the images that ACC rests on.

    Args:
        distributions: image id -> nine probabilities that sum to 1. records: the evaluated split.

    Returns:
        acc: share of images whose likeliest emotion is the dominant one; ece: expected calibration error (Guo et al.,
        2017), the mean over the images of |accuracy - mean confidence| of their bin. Fractions 0 .. 1, 0.0 where no image
        counts.

    Raises:
        ValueError: a row is no distribution over nine.
    """
    counts, right, confidence = reliability(distributions, records, bins)
    images = max(int(counts.sum()), 1)
    return {"acc": float(right.sum() / images), "ece": float(np.abs(right - confidence).sum() / images)}


def reliability(
    distributions: Mapping[int, Sequence[float]], records: Records, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What calibration is made of, see `accuracy_and_ece`, which has the same arguments and errors.

    Returns:
        for each bin: images, how many of them are right, and the sum of their confidences; each [bins].
    """
    _, right, confidence, of_bin = _judged(distributions, records, bins)
    return tuple(np.bincount(of_bin, weights, minlength=bins) for weights in (None, right, confidence))


def calibration_of_images(
    distributions: Mapping[int, Sequence[float]], records: Records, bins: int = BINS
) -> tuple[dict[int, bool], dict[int, list[float]]]:
    """Both scores of `accuracy_and_ece` image by image, of the images that count.

    Returns:
        image id -> whether it is right; image id -> [bins + 1]: right - confidence in the image's bin, and 1 at the end.
        `ece_of_sums` makes the error of the sum of these rows over any images.
    """
    images, right, confidence, of_bin = _judged(distributions, records, bins)
    rows = np.zeros((len(images), bins + 1))
    rows[np.arange(len(images)), of_bin] = right - confidence
    rows[:, -1] = 1
    return dict(zip(images, right.tolist(), strict=True)), dict(zip(images, rows.tolist(), strict=True))


def ece_of_sums(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error of summed rows of `calibration_of_images`: [..., bins + 1] -> [...]; NaN of no image."""
    with np.errstate(invalid="ignore"):
        return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


def _judged(
    distributions: Mapping[int, Sequence[float]], records: Records, bins: int
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """The images that count, whether each is right, its confidence and its bin."""
    table = np.array(list(distributions.values()), np.float64).reshape(
        len(distributions), -1 if distributions else len(EMOTIONS)
    )
    if table.shape[1] != len(EMOTIONS):
        raise ValueError(f"distributions of shape {table.shape}, ({len(distributions)}, {len(EMOTIONS)}) expected")
    if not np.allclose(table.sum(axis=1), 1, atol=1e-3) or (table < 0).any():
        raise ValueError("a row is not a distribution")
    answers = dominant_emotions(records)
    images = [image for image in distributions if image in answers]
    table = table[[image in answers for image in distributions]] if distributions else table
    labels = np.array([EMOTION_INDEX[answers[image]] for image in images], dtype=np.int64)
    confidence = table.max(axis=1)
    # intervals closed above, as in the paper: ]0, 1/15], ]1/15, 2/15], ...
    of_bin = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return images, table.argmax(axis=1) == labels, confidence, of_bin


# ---- Distances to what the annotators said, image by image: words in VAD space, and the distributions of the ----------------


TINY = 1e-12  # keeps KL finite where the model rules out an emotion that an annotator felt

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


def distribution_distances(
    distributions: Mapping[int, Sequence[float]], records: Records
) -> dict[str, dict[int, float]]:
    """How far a model's distribution q of the nine emotions are from the annotators' distribution p.

    Args:
        distributions: image id -> nine probabilities that sum to 1. records: the scored split.

    Returns:
        score -> image id -> value. KL: sum of p log(p / q), in nats, 0 or more; JS: Jensen-Shannon divergence
        (Lin, 1991) in bits, 0 .. 1; brier: sum of (p - q)^2, 0 .. 2 (Brier, 1950). 0 is best.
    """
    q = np.array(list(distributions.values()), np.float64)
    p = np.array([records[str(image)]["origin_emotion_distribution"] for image in distributions], np.float64)
    middle = (p + q) / 2
    rows = {
        "KL": _kl(p, np.maximum(q, TINY)),
        "JS": (_kl(p, middle) + _kl(q, middle)) / (2 * np.log(2)),
        "brier": ((p - q) ** 2).sum(axis=1),
    }
    return {name: dict(zip(distributions, row.tolist(), strict=True)) for name, row in rows.items()}


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of the rows, in nats; an entry where p is 0 counts as 0."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(axis=1)
