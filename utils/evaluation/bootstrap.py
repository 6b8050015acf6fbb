"""Bootstrap over images (Efron, 1979): a score's interval, and whether two runs differ, from counts without rescoring."""

import numpy as np

from utils.evaluation.image_scores import ImageScores

RESAMPLES, SEED, LEVEL = 1000, 2021, 0.95


def resampled_weights(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """How often each of I images is drawn in each of B samples of I with replacement: float64 [B, I]."""
    draws = np.random.default_rng(seed).integers(images, size=(resamples, images))
    return np.stack([np.bincount(row, minlength=images) for row in draws]).astype(np.float64)


def intervals(scores: ImageScores) -> dict[str, list[float]]:
    """The 95 % percentile interval [low, high] of every score."""
    sampled = scores.scores(resampled_weights(len(scores.images)))
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
    scores_a, scores_b = a.scores(whole), b.scores(whole)
    samples_a, samples_b = a.scores(weights), b.scores(weights)
    found = {}
    for name in (name for name in scores_a if name in scores_b):
        differences = samples_b[name] - samples_a[name]
        differences = differences[~np.isnan(differences)]
        if not len(differences):
            continue
        tail = min((differences <= 0).sum(), (differences >= 0).sum())
        score_a, score_b = float(scores_a[name][0]), float(scores_b[name][0])
        found[name] = {
            "a": score_a,
            "b": score_b,
            "difference": score_b - score_a,
            "interval": _interval(differences),
            "p": float(min(1.0, 2 * (tail + 1) / (len(differences) + 1))),
        }
    return found


def _interval(values: np.ndarray) -> list[float]:
    tail = 100 * (1 - LEVEL) / 2
    return [float(value) for value in np.nanpercentile(values, [tail, 100 - tail])]
