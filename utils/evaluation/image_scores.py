"""The scores of single images, as a file beside report.json, of which intervals and comparisons are made."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.records import Records, dominant_emotion
from utils.errors import InputError
from utils.evaluation.bootstrap import ImageScores
from utils.evaluation.emotion_metrics import METAPHORS, named_emotion
from utils.evaluation.evaluation import Evaluation
from utils.files import read_json, write_json

REMEDY = "score the captions again"
MEANS = ("ROUGE_L", "CIDEr", "SPICE")  # of the caption scores, those that are means over images


def image_scores(
    evaluation: Evaluation, records: Records, more: Mapping[str, Mapping[int, float]] | None = None
) -> ImageScores:
    """Collect what an evaluation says of each image. more: score -> image id -> value, of the images that count."""
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
        {name: np.array([of[image] for image in images], np.float64) for name, of in evaluation.sums.items()},
    )


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
        width = {"bleu": 10, "meteor": 23}
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
