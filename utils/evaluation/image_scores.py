"""The scores of single images: collected, written beside report.json, summed up for groups, and resampled for intervals.

The bootstrap over images (Efron, 1979) gives a score's interval, and whether two runs differ, without scoring again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cococaption.bleu import bleu_of_counts
from cococaption.meteor import meteor_of_statistics
from utils.constants import EMOTIONS
from utils.data.records import Records, dominant_emotion
from utils.errors import InputError
from utils.evaluation.emotion_metrics import dominant_emotions, ece_of_sums, emotion_counts, f1_scores, named_emotion
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.text_metrics import has_metaphor
from utils.files import read_json, write_json

BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")
MEANS = ("ROUGE_L", "CIDEr", "SPICE")  # of the caption scores, those that are means over images


@dataclass
class ImageScores:
    """What the scores of one run are computed from, image by image.

    images: the I ids. values: score -> [I] floats, NaN where the image does not count: the score is their mean.
    sums: "bleu", "meteor", "emotions", "head_ece", "likelihood_ece" -> [I, K]: the score is computed from the sum over
        the images.
    """

    images: list[int]
    values: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of B samples: `weights` [B, I] says how often each image is in each; score -> [B] floats.

        A score is NaN in samples that hold none of the images it counts. CIDEr's document frequencies stay those of
        the whole split.
        """
        scores = _caption_scores({name: weights @ rows for name, rows in self.sums.items()})
        scores |= {name: ece_of_sums(weights @ rows) for name, rows in self.sums.items() if name.endswith("_ece")}
        if "emotions" in self.sums:
            f1 = f1_scores(weights @ self.sums["emotions"])
            scores |= {name: f1[name] for name in ("macro_F1", "weighted_F1")}
        if self.values:
            table = np.column_stack(list(self.values.values()))
            counted = ~np.isnan(table)
            with np.errstate(invalid="ignore"):
                means = (weights @ np.where(counted, table, 0)) / (weights @ counted.astype(float))
            scores |= dict(zip(self.values, means.T, strict=True))
        return scores

    def emotion_table(self) -> dict[str, dict[str, Any]]:
        """Dominant emotion -> "images", "precision", "recall", "F1", and "interval", the 95 % interval of F1."""
        rows = self.sums["emotions"]
        whole, sampled = f1_scores(rows.sum(axis=0)), f1_scores(resampled_weights(len(self.images)) @ rows)["F1"]
        return {
            emotion: {
                "images": int(rows[:, place].sum()),
                **{name: float(whole[name][place]) for name in ("precision", "recall", "F1")},
                "interval": _interval(sampled[:, place]),
            }
            for place, emotion in enumerate(EMOTIONS)
            if rows[:, place].any() or rows[:, len(EMOTIONS) + place].any()
        }

    def of_images(self) -> dict[str, np.ndarray]:
        """Score -> [I]: the score of each image alone."""
        return self.values | _caption_scores(self.sums)


def _caption_scores(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """BLEU and METEOR of N rows of sums, each [N]."""
    scores = {}
    if "bleu" in sums:
        scores |= dict(zip(BLEU, bleu_of_counts(sums["bleu"]).T, strict=True))
    if "meteor" in sums:
        scores["METEOR"] = meteor_of_statistics(sums["meteor"])
    return scores


def image_scores(
    evaluation: Evaluation,
    records: Records,
    values: Mapping[str, Mapping[int, float]] | None = None,
    sums: Mapping[str, Mapping[int, list[float]]] | None = None,
) -> ImageScores:
    """Collect the scores of each image: those of an evaluation, and others.

    Args:
        values: score -> image id -> value, of the images that count. sums: score -> image id -> what is summed.
    """
    images = list(evaluation.explanations)
    found: dict[str, Mapping[int, float]] = {
        name: {image: scores[name] for image, scores in evaluation.of_images.items()}
        for name in MEANS
        if name in evaluation.scores
    }
    if evaluation.full:
        answers = dominant_emotions(records)
        found["sub_acc"] = {
            image: named_emotion(evaluation.full[image]) == answers[image] for image in images if image in answers
        }
        sums = {"emotions": emotion_counts(evaluation.full, records), **(sums or {})}
    found["metaphors"] = {image: has_metaphor(text) for image, text in evaluation.explanations.items()}
    found["mean_length"] = {image: len(text.split()) for image, text in evaluation.explanations.items()}
    found |= values or {}
    return ImageScores(
        images,
        {name: np.array([of.get(image, np.nan) for image in images], np.float64) for name, of in found.items()},
        {name: _rows(of, images) for name, of in (evaluation.sums | dict(sums or {})).items() if of},
    )


def _rows(of_images: Mapping[int, list[float]], images: list[int]) -> np.ndarray:
    """[I, K]; zeros, which change no sum, for images that do not count."""
    zeros = [0.0] * len(next(iter(of_images.values())))
    return np.array([of_images.get(image, zeros) for image in images], np.float64)


# ---- the file beside report.json -------------------------------------------------------------------------------------


def images_path(report: Path) -> Path:
    """The file with the scores of single images that belongs to a report."""
    return report.with_name(f"{report.stem}_images.json")


def references_hash(references: Mapping[int, list[str]], images: list[int]) -> str:
    """SHA-256 of the reference texts of these images, whatever their order or the layout of the file."""
    rows = [[image, sorted(references[image])] for image in sorted(images)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def write_images(
    report: Path, scores: ImageScores, records: Records, captions: Mapping[int, str], references: str
) -> None:
    """Write the file beside `report`. captions: image id -> the text to show. references: `references_hash`."""
    content = {
        "references": references,
        "images": scores.images,
        "names": [records[str(image)]["image_name"] for image in scores.images],
        "captions": [captions[image] for image in scores.images],
        "values": {
            name: [None if np.isnan(value) else value for value in row.tolist()] for name, row in scores.values.items()
        },
        "sums": {name: row.tolist() for name, row in scores.sums.items()},
    }
    write_json(images_path(report), content)


def read_images(report: Path) -> tuple[ImageScores, dict[str, Any]]:
    """Read the file beside `report`: the scores, and "references", "names" and "captions".

    Raises:
        InputError: it is missing or is not such a file.
    """
    path = images_path(report)
    content = read_json(path)
    try:
        values = {name: np.array(row, np.float64) for name, row in content["values"].items()}  # null becomes NaN
        sums = {name: np.array(rows, np.float64) for name, rows in content["sums"].items()}
        return ImageScores(content["images"], values, sums), {
            name: content[name] for name in ("references", "names", "captions")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: does not hold the scores of single images; score the captions again") from None


# ---- groups of images ------------------------------------------------------------------------------------------------

# key in a report -> title
GROUPS = {
    "of_right_emotion": "Images whose named emotion is the majority's",
    "per_emotion": "Images by majority emotion",
    "per_style": "Images by art style",
}


def group_scores(scores: ImageScores, records: Records) -> dict[str, dict[str, Any]]:
    """Scores of groups of images, without rescoring: CIDEr's document frequencies stay those of the whole split.

    Returns:
        "of_right_emotion" -> {"images": n, score: value ...}, over the images where one emotion has more than half of
        the votes and the caption names it (absent where the captions name no emotion); "per_emotion" (that majority
        emotion, in the order of `EMOTIONS`) and "per_style" (the folder in `image_name`, sorted) -> group -> the same.
        Images without a majority, or without a folder, are in no group. A score that no image of a group counts for
        is left out.
    """
    groups: dict[str, dict[str, Any]] = {}
    if "sub_acc" in scores.values:
        right = _scores_of(scores, {"right": scores.values["sub_acc"] == 1})["right"]
        groups["of_right_emotion"] = {name: value for name, value in right.items() if name != "sub_acc"}  # always 1
    rows = [records[str(image)] for image in scores.images]
    emotion = np.array([dominant_emotion(row["origin_emotion_distribution"]) or "" for row in rows])
    style = np.array([row["image_name"].rpartition("/")[0].partition("/")[0] for row in rows])
    emotions = [name for name in EMOTIONS if (emotion == name).any()]
    groups["per_emotion"] = _scores_of(scores, {name: emotion == name for name in emotions})
    groups["per_style"] = _scores_of(scores, {name: style == name for name in sorted({*style.tolist()} - {""})})
    return groups


def _scores_of(scores: ImageScores, groups: dict[str, np.ndarray]) -> dict[str, dict[str, float | int]]:
    """Group -> its number of images and scores. groups: name -> [I] bool."""
    if not groups:
        return {}
    columns = scores.scores(np.stack(list(groups.values())).astype(np.float64))
    found = {}
    for place, (group, chosen) in enumerate(groups.items()):
        found[group] = {"images": int(chosen.sum())}
        values = {name: float(column[place]) for name, column in columns.items()}
        if chosen.any():
            found[group] |= {name: value for name, value in values.items() if not np.isnan(value)}
    return found


# ---- bootstrap over images -------------------------------------------------------------------------------------------


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
