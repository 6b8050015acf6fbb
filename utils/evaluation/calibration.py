"""Accuracy and calibration of a distribution over the nine emotions, such as the emotion head's."""

from collections.abc import Mapping, Sequence

import numpy as np

from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.data.records import Records
from utils.evaluation.emotion_metrics import dominant_emotions

BINS = 15  # intervals of equal width on 0 .. 1 that the confidence (the largest share) is sorted into


def accuracy_and_ece(shares: Mapping[int, Sequence[float]], records: Records, bins: int = BINS) -> dict[str, float]:
    """Accuracy and calibration over the images that ACC rests on.

    Args:
        shares: image id -> nine shares that sum to 1. records: the evaluated split.

    Returns:
        acc: share of images whose likeliest emotion is the dominant one; ece: expected calibration error (Guo et al.,
        2017), the mean over the images of |accuracy - mean confidence| of their bin. Fractions 0 .. 1, 0.0 where no image
        counts.

    Raises:
        ValueError: a row is no distribution over nine.
    """
    counts, right, confidence = reliability(shares, records, bins)
    images = max(int(counts.sum()), 1)
    return {"acc": float(right.sum() / images), "ece": float(np.abs(right - confidence).sum() / images)}


def reliability(
    shares: Mapping[int, Sequence[float]], records: Records, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What calibration is made of, see `accuracy_and_ece`, which has the same arguments and errors.

    Returns:
        for each bin: images, how many of them are right, and the sum of their confidences; each [bins].
    """
    _, right, confidence, of_bin = _judged(shares, records, bins)
    return tuple(np.bincount(of_bin, weights, minlength=bins) for weights in (None, right, confidence))


def calibration_of_images(
    shares: Mapping[int, Sequence[float]], records: Records, bins: int = BINS
) -> tuple[dict[int, bool], dict[int, list[float]]]:
    """Both scores of `accuracy_and_ece` image by image, of the images that count.

    Returns:
        image id -> whether it is right; image id -> [bins + 1]: right - confidence in the image's bin, and 1 at the end.
        `ece_of_sums` makes the error of the sum of these rows over any images.
    """
    images, right, confidence, of_bin = _judged(shares, records, bins)
    rows = np.zeros((len(images), bins + 1))
    rows[np.arange(len(images)), of_bin] = right - confidence
    rows[:, -1] = 1
    return dict(zip(images, right.tolist(), strict=True)), dict(zip(images, rows.tolist(), strict=True))


def ece_of_sums(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error of summed rows of `calibration_of_images`: [..., bins + 1] -> [...]; NaN of no image."""
    with np.errstate(invalid="ignore"):
        return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


def _judged(
    shares: Mapping[int, Sequence[float]], records: Records, bins: int
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """The images that count, whether each is right, its confidence and its bin."""
    table = np.array(list(shares.values()), np.float64).reshape(len(shares), -1 if shares else len(EMOTIONS))
    if table.shape[1] != len(EMOTIONS):
        raise ValueError(f"shares of shape {table.shape}, ({len(shares)}, {len(EMOTIONS)}) expected")
    if not np.allclose(table.sum(axis=1), 1, atol=1e-3) or (table < 0).any():
        raise ValueError("a row of shares is no distribution")
    answers = dominant_emotions(records)
    images = [image for image in shares if image in answers]
    table = table[[image in answers for image in shares]] if shares else table
    labels = np.array([EMOTION_INDEX[answers[image]] for image in images], dtype=np.int64)
    confidence = table.max(axis=1)
    # intervals closed above, as in the paper: ]0, 1/15], ]1/15, 2/15], ...
    of_bin = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return images, table.argmax(axis=1) == labels, confidence, of_bin
