"""The scores of single images, as a file beside report.json, of which intervals and comparisons are made."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.constants import EMOTIONS
from utils.data.records import Records, dominant_emotion
from utils.errors import InputError
from utils.evaluation.bootstrap import ImageScores
from utils.evaluation.emotion_metrics import BINS, METAPHORS, named_emotion
from utils.evaluation.evaluation import Evaluation
from utils.files import read_json, write_json

# ---- The scores of single images, as a file beside report.json, of which intervals and comparisons are ---------------


REMEDY = "score the captions again"
MEANS = ("ROUGE_L", "CIDEr", "SPICE")  # of the caption scores, those that are means over images


def image_scores(
    evaluation: Evaluation,
    records: Records,
    more: Mapping[str, Mapping[int, float]] | None = None,
    more_sums: Mapping[str, Mapping[int, list[float]]] | None = None,
) -> ImageScores:
    """Collect what an evaluation says of each image.

    Args:
        more: score -> image id -> value, of the images that count. more_sums: score -> image id -> what is summed, likewise.
    """
    images = list(evaluation.explanations)
    values: dict[str, Mapping[int, float]] = {}
    for name in MEANS:
        if name in evaluation.scores:
            values[name] = {image: row[name] for image, row in evaluation.of_images.items()}
    if evaluation.full:
        dominant = {image: dominant_emotion(records[str(image)]["origin_emotion_distribution"]) for image in images}
        values["sub_acc"] = {
            image: named_emotion(evaluation.full[image]) == answer for image, answer in dominant.items() if answer
        }
    texts = {image: " ".join(text.lower().split()) for image, text in evaluation.explanations.items()}
    values["metaphors"] = {image: any(phrase in text for phrase in METAPHORS) for image, text in texts.items()}
    values["mean_length"] = {image: len(text.split()) for image, text in texts.items()}
    values |= more or {}
    return ImageScores(
        images,
        {name: np.array([of.get(image, np.nan) for image in images], np.float64) for name, of in values.items()},
        {name: _rows(of, images) for name, of in (evaluation.sums | dict(more_sums or {})).items() if of},
    )


def _rows(of: Mapping[int, list[float]], images: list[int]) -> np.ndarray:
    """[I, K]; zeros, which change no sum, for images that do not count."""
    nothing = [0.0] * len(next(iter(of.values())))
    return np.array([of.get(image, nothing) for image in images], np.float64)


def references_hash(references: Mapping[int, list[str]], images: list[int]) -> str:
    """SHA-256 of the reference texts of these images, whatever their order or the layout of the file."""
    rows = [[image, sorted(references[image])] for image in sorted(images)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def images_path(report: Path) -> Path:
    """The file of the single images that belongs to a report."""
    return report.with_name(f"{report.stem}_images.json")


def write_images(
    report: Path, scores: ImageScores, records: Records, texts: Mapping[int, str], references: str
) -> None:
    """Write the file beside `report`. texts: image id -> the caption to show. references: `references_hash`."""
    of_images = {
        "references": references,
        "images": scores.images,
        "names": [records[str(image)]["image_name"] for image in scores.images],
        "captions": [texts[image] for image in scores.images],
        "values": {
            name: [None if np.isnan(value) else value for value in row.tolist()] for name, row in scores.values.items()
        },
        "sums": {name: row.tolist() for name, row in scores.sums.items()},
    }
    write_json(images_path(report), of_images)


def read_images(report: Path) -> tuple[ImageScores, dict[str, Any]]:
    """Read the file beside `report`: the scores, and "references", "names" and "captions".

    Raises:
        InputError: it is missing or no such file.
    """
    path = images_path(report)
    data = read_json(path)
    try:
        images = data["images"]
        values = {
            name: np.array([np.nan if value is None else value for value in row], np.float64)
            for name, row in data["values"].items()
        }
        sums = {name: np.array(row, np.float64) for name, row in data["sums"].items()}
        width = {"bleu": 10, "meteor": 23, "head_ece": BINS + 1, "likelihood_ece": BINS + 1}
        whole = all(row.shape == (len(images),) for row in values.values())
        whole &= all(row.shape == (len(images), width[name]) for name, row in sums.items())
        whole &= all(len(data[name]) == len(images) > 0 for name in ("names", "captions"))
        whole &= len({int(image) for image in images}) == len(images) and isinstance(data["references"], str)
        whole &= all(isinstance(text, str) for name in ("names", "captions") for text in data[name])
    except (KeyError, TypeError, ValueError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{path}: does not hold the scores of single images; {REMEDY}")
    return ImageScores(images, values, sums), data


# ---- The scores of some of the images: those with the right emotion, those of one emotion, those of one --------------


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
    found: dict[str, dict[str, Any]] = {}
    if "sub_acc" in scores.values:
        right = _scores_of(scores, {"right": scores.values["sub_acc"] == 1})["right"]
        found["of_right_emotion"] = {name: value for name, value in right.items() if name != "sub_acc"}  # always 1
    rows = [records[str(image)] for image in scores.images]
    emotion = np.array([dominant_emotion(row["origin_emotion_distribution"]) or "" for row in rows])
    style = np.array([row["image_name"].rpartition("/")[0].partition("/")[0] for row in rows])
    emotions = [name for name in EMOTIONS if (emotion == name).any()]
    found["per_emotion"] = _scores_of(scores, {name: emotion == name for name in emotions})
    found["per_style"] = _scores_of(scores, {name: style == name for name in sorted({*style.tolist()} - {""})})
    return found


def _scores_of(scores: ImageScores, groups: dict[str, np.ndarray]) -> dict[str, dict[str, float | int]]:
    """Group -> its number of images and scores. groups: name -> [I] bool."""
    if not groups:
        return {}
    columns = scores.scores(np.stack(list(groups.values())).astype(np.float64))
    found = {}
    for place, (group, chosen) in enumerate(groups.items()):
        images = int(chosen.sum())
        found[group] = {"images": images}
        if images:
            values = {name: float(column[place]) for name, column in columns.items()}
            found[group] |= {name: value for name, value in values.items() if not np.isnan(value)}
    return found
