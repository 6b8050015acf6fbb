"""Bootstrap over images (Efron, 1979): a score's interval, and whether two runs differ, from counts without rescoring."""

from dataclasses import dataclass

import numpy as np

from cococaption.bleu import bleu_of_counts
from cococaption.meteor import meteor_of_statistics
from utils.evaluation.emotion_metrics import ece_of_sums

RESAMPLES, SEED, LEVEL = 1000, 2021, 0.95
BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


@dataclass
class ImageScores:
    """What the scores of one run are made of, image by image.

    images: the I ids. values: score -> [I] floats, NaN where the image does not count: the score is their mean.
    sums: "bleu", "meteor", "head_ece", "likelihood_ece" -> [I, K]: the scores are made of the sum over the images.
    """

    images: list[int]
    values: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of B samples: `weights` [B, I] says how often each image is in each; score -> [B] floats.

        A score is NaN in samples that hold none of the images it counts. CIDEr's document frequencies stay those of
        the whole split.
        """
        found = {}
        if "bleu" in self.sums:
            found |= dict(zip(BLEU, bleu_of_counts(weights @ self.sums["bleu"]).T, strict=True))
        if "meteor" in self.sums:
            found["METEOR"] = meteor_of_statistics(weights @ self.sums["meteor"])
        found |= {name: ece_of_sums(weights @ of) for name, of in self.sums.items() if name.endswith("_ece")}
        names = list(self.values)
        if names:
            table = np.column_stack([self.values[name] for name in names])
            counted = ~np.isnan(table)
            with np.errstate(invalid="ignore"):
                means = (weights @ np.where(counted, table, 0)) / (weights @ counted.astype(float))
            found |= dict(zip(names, means.T, strict=True))
        return found

    def of_images(self) -> dict[str, np.ndarray]:
        """Score -> [I]: the score of each image alone."""
        found = dict(self.values)
        if "bleu" in self.sums:
            found |= dict(zip(BLEU, bleu_of_counts(self.sums["bleu"]).T, strict=True))
        if "meteor" in self.sums:
            found["METEOR"] = meteor_of_statistics(self.sums["meteor"])
        return found


def resampled_weights(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each of I images is drawn in each of B samples of I with replacement: float64 [B, I]."""
    draws = np.random.default_rng(seed).integers(images, size=(resamples, images))
    return np.stack([np.bincount(row, minlength=images) for row in draws]).astype(np.float64)


def intervals(scores: ImageScores, resamples: int = RESAMPLES, seed: int = SEED) -> dict[str, list[float]]:
    """The 95 % percentile interval [low, high] of every score."""
    sampled = scores.scores(resampled_weights(len(scores.images), resamples, seed))
    return {name: _interval(values) for name, values in sampled.items() if not np.isnan(values).all()}


def paired_difference(
    a: ImageScores, b: ImageScores, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, dict[str, float | list[float]]]:
    """b - a for every score of both runs, whose images are the same and in the same order.

    Returns:
        score -> {"a", "b", "difference", "interval": [low, high], "p"}. The B samples are the same for both runs. p is
        two-sided: 2 (k + 1) / (B + 1), at most 1, for k samples in which the difference is 0 or has the other sign.
    """
    whole, weights = np.ones((1, len(a.images))), resampled_weights(len(a.images), resamples, seed)
    (of_a, of_b), (drawn_a, drawn_b) = [(a.scores(w), b.scores(w)) for w in (whole, weights)]
    found = {}
    for name in (name for name in of_a if name in of_b):
        differences = drawn_b[name] - drawn_a[name]
        differences = differences[~np.isnan(differences)]
        if not len(differences):
            continue
        tail = min((differences <= 0).sum(), (differences >= 0).sum())
        found[name] = {
            "a": float(of_a[name][0]),
            "b": float(of_b[name][0]),
            "difference": float(of_b[name][0] - of_a[name][0]),
            "interval": _interval(differences),
            "p": float(min(1.0, 2 * (tail + 1) / (len(differences) + 1))),
        }
    return found


def _interval(values: np.ndarray) -> list[float]:
    tail = 100 * (1 - LEVEL) / 2
    return [float(value) for value in np.nanpercentile(values, [tail, 100 - tail])]
