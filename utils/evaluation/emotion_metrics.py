"""Scores of emotions: accuracy, emotion alignment, calibration, and distances to the annotators' distribution and VAD."""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from utils.constants import BECAUSE, EMOTION_INDEX, EMOTIONS
from utils.data.records import Records, dominant_emotion
from utils.evaluation.text_metrics import words_of

BINS = 15  # intervals of equal width on 0 .. 1 for the confidence, the largest of the nine probabilities
TINY = 1e-12  # keeps KL finite where the model rules out an emotion that an annotator felt

Distributions = Mapping[int, Sequence[float]]  # image id -> nine probabilities that sum to 1
VAD = tuple[float, float, float]


def split_generated(full: str) -> tuple[str, str]:
    """Split a generated text into (emotion, explanation).

    The emotion is the text before the first "because", the explanation the text after the last; both are stripped.
    Without "because", the emotion is the whole text and the explanation starts at the third word.
    """
    emotion = named_emotion(full)
    if BECAUSE in full:
        return emotion, full.rpartition(BECAUSE)[2].strip()
    return emotion, " ".join(full.split()[2:])


def named_emotion(caption: str) -> str:
    """The emotion that a caption names: the text before the first "because", stripped; may be any text."""
    return caption.partition(BECAUSE)[0].strip()


# ---- accuracy --------------------------------------------------------------------------------------------------------


def dominant_emotions(records: Records) -> dict[int, str]:
    """Image id -> the emotion with more than half of the votes, of the images that have one: those that ACC rests on."""
    dominant = {int(image): dominant_emotion(r["origin_emotion_distribution"]) for image, r in records.items()}
    return {image: emotion for image, emotion in dominant.items() if emotion is not None}


def emotion_accuracy(captions: Mapping[int, str], records: Records) -> tuple[float, int]:
    """ACC (`sub_acc`): the fraction of images whose caption names the image's dominant emotion.

    Over the images where one emotion has more than half of the votes; one without a caption counts as wrong, captions
    of other images are ignored.

    Args:
        captions: image id -> caption, "<emotion> because <explanation>".
        records: the evaluated split, image id as a string -> record.

    Returns:
        accuracy in 0 .. 1 (0.0 when there is no such image) and the number of images it rests on.
    """
    answers = dominant_emotions(records)
    correct = sum(image in captions and named_emotion(captions[image]) == answer for image, answer in answers.items())
    return correct / max(len(answers), 1), len(answers)


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


def emotion_counts(captions: Mapping[int, str], records: Records) -> dict[int, list[float]]:
    """What `f1_scores` sums, of each image that ACC rests on: image id -> [27].

    Three times nine numbers, 1 or 0: the image's dominant emotion; the one that its caption names; the one that is both.
    """
    counts = {}
    for image, answer in dominant_emotions(records).items():
        named = named_emotion(captions.get(image, ""))
        row = [emotion == answer for emotion in EMOTIONS] + [emotion == named for emotion in EMOTIONS]
        counts[image] = [float(value) for value in (*row, *(emotion == answer == named for emotion in EMOTIONS))]
    return counts


def f1_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of the named emotions (van Rijsbergen, 1979), as fractions 0 .. 1.

    precision: of the images whose caption names an emotion, those that have it as dominant emotion; recall: the reverse; F1:
    their harmonic mean. 0 where there is no such image. The macro mean is over the emotions that any image has as dominant
    one, the weighted mean counts each of them by its images. scikit-learn's f1_score gives the same with these labels.

    Args:
        sums: of `emotion_counts` over any images, [..., 27].

    Returns:
        "precision", "recall", "F1" -> [..., 9]; "macro_F1", "weighted_F1" -> [...], NaN of no image.
    """
    dominant, named, right = np.moveaxis(np.asarray(sums, np.float64).reshape(*np.shape(sums)[:-1], 3, -1), -2, 0)

    def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    f1 = ratio(2 * right, dominant + named)
    with np.errstate(invalid="ignore"):
        macro = np.where(dominant > 0, f1, 0).sum(axis=-1) / (dominant > 0).sum(axis=-1)
        weighted = (f1 * dominant).sum(axis=-1) / dominant.sum(axis=-1)
    return {
        "precision": ratio(right, named),
        "recall": ratio(right, dominant),
        "F1": f1,
        "macro_F1": macro,
        "weighted_F1": weighted,
    }


def f1_of_confusion(counts: np.ndarray) -> dict[str, np.ndarray]:
    """`f1_scores` of a confusion matrix [9, 10]."""
    return f1_scores(np.concatenate([counts.sum(axis=1), counts[:, :-1].sum(axis=0), counts.diagonal()]))


def emotion_alignment(
    predicted: Mapping[int, Hashable], votes: Mapping[int, Sequence[Hashable]]
) -> dict[str, dict[int, bool]]:
    """EA: whether an explanation conveys, to a text classifier, the emotion that most annotators felt.

    Two definitions, as papers differ: over the images where one emotion has more than half of the votes, and ArtEmis'
    own, over those where one has at least half and no other as many. An image without a prediction counts as wrong.

    Args:
        predicted: image id -> the emotion that the classifier finds in the image's explanation.
        votes: image id -> the annotators' emotions, in the same spelling (names or labels) as the predictions.

    Returns:
        "EA_more_than_half" and "EA_at_least_half" -> image id -> whether it agrees, of the images that count.
    """
    more_than_half, at_least_half = {}, {}
    for image, emotions in votes.items():
        (emotion, count), *others = Counter(emotions).most_common(2)
        agrees = predicted.get(image) == emotion
        if 2 * count > len(emotions):
            more_than_half[image] = agrees
        if 2 * count >= len(emotions) and not (others and others[0][1] == count):
            at_least_half[image] = agrees
    return {"EA_more_than_half": more_than_half, "EA_at_least_half": at_least_half}


# ---- calibration of distributions over the nine emotions, such as the emotion head's ---------------------------------


def accuracy_and_ece(distributions: Distributions, records: Records) -> dict[str, float]:
    """Accuracy and calibration over the images that ACC rests on.

    Returns:
        acc: fraction of images whose most probable emotion is the dominant one; ece: expected calibration error (Guo et al.,
        2017), the mean over the images of |accuracy - mean confidence| of their bin. Fractions 0 .. 1, 0.0 where no image
        counts.
    """
    images, right, confidence = reliability(distributions, records)
    return {"acc": float(right.sum() / max(images.sum(), 1)), "ece": ece_of_bins(images, right, confidence)}


def ece_of_bins(images: np.ndarray, right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error of the bins of `reliability`, in 0 .. 1."""
    return float(np.abs(right - confidence).sum() / max(images.sum(), 1))


def reliability(distributions: Distributions, records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each bin of confidence: images, how many of them are right, and the sum of their confidences; each [BINS]."""
    _, right, confidence, bins = _confidences(distributions, records)
    return tuple(np.bincount(bins, weights, minlength=BINS) for weights in (None, right, confidence))


def calibration_of_images(
    distributions: Distributions, records: Records
) -> tuple[dict[int, bool], dict[int, list[float]]]:
    """Both scores of `accuracy_and_ece` image by image, of the images that count.

    Returns:
        image id -> whether it is right; image id -> [BINS + 1]: right - confidence in the image's bin, and 1 at the end.
        `ece_of_sums` computes the error from the sum of these rows over any images.
    """
    images, right, confidence, bins = _confidences(distributions, records)
    rows = np.zeros((len(images), BINS + 1))
    rows[np.arange(len(images)), bins] = right - confidence
    rows[:, -1] = 1
    return dict(zip(images, right.tolist(), strict=True)), dict(zip(images, rows.tolist(), strict=True))


def ece_of_sums(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error of summed rows of `calibration_of_images`: [..., BINS + 1] -> [...]; NaN of no image."""
    with np.errstate(invalid="ignore"):
        return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


def _confidences(
    distributions: Distributions, records: Records
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """The images that count, whether each is right, its confidence and its bin."""
    answers = dominant_emotions(records)
    images = [image for image in distributions if image in answers]
    table = np.array([distributions[image] for image in images], np.float64).reshape(-1, len(EMOTIONS))
    labels = np.array([EMOTION_INDEX[answers[image]] for image in images], dtype=np.int64)
    confidence = table.max(axis=1)
    # intervals closed above, as in the paper: ]0, 1/15], ]1/15, 2/15], ...
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return images, table.argmax(axis=1) == labels, confidence, bins


# ---- distances to the annotators, image by image ---------------------------------------------------------------------


def distribution_distances(distributions: Distributions, records: Records) -> dict[str, dict[int, float]]:
    """Distance of a model's distribution q over the nine emotions to the annotators' distribution p.

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


def vad_distances(
    explanations: Mapping[int, str], references: Mapping[int, Sequence[str]], lexicon: Mapping[str, VAD]
) -> dict[int, float]:
    """Euclidean distance of an explanation's mean VAD to that of its image's references, 0 .. 2 * sqrt(3).

    The mean is over the words that the lexicon has in exactly this form, in lower case; the references' words are taken
    together. Images where either side has no such word are left out.

    Args:
        explanations: image id -> text. references: image id -> texts. lexicon: word -> VAD in [-1, 1].
    """
    means = {
        image: (_mean_vad([text], lexicon), _mean_vad(references[image], lexicon))
        for image, text in explanations.items()
    }
    return {
        image: float(np.linalg.norm(mean - reference_mean))
        for image, (mean, reference_mean) in means.items()
        if mean is not None and reference_mean is not None
    }


def _mean_vad(texts: Iterable[str], lexicon: Mapping[str, VAD]) -> np.ndarray | None:
    vectors = [lexicon[word] for text in texts for word in words_of(text) if word in lexicon]
    return np.mean(vectors, axis=0) if vectors else None
