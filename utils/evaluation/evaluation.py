"""One evaluation of a split: its texts and scores, and the files it writes.

No torch here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cococaption import CaptionScorer
from cococaption.tokenizer import printable
from utils.data.records import Records
from utils.errors import InputError
from utils.evaluation.emotion_metrics import (
    accuracy_and_ece,
    emotion_accuracy,
    emotion_counts,
    f1_scores,
)
from utils.files import read_json, write_json


@dataclass
class Evaluation:
    """The generated texts of a split and their scores.

    full: image id -> whole generated text; empty where the explanations came without emotions.
    explanations: image id -> its explanation.
    scores: score -> value, as fractions 0 .. 1 (CIDEr 0 .. 10).
    counts: "images", and "with_majority", those with a majority emotion that sub_acc rests on.
    distributions: "head" (the emotion head's) and "likelihood" (by the likelihood of the emotions' names), where they were
        computed -> image id -> nine probabilities.
    named: image id -> the emotion that the model's own text names, where the caption was written for another one.
    of_images: image id -> the caption scores of that image alone.
    sums: as the third result of `CaptionScorer.score_with_sums`.
    """

    full: dict[int, str]
    explanations: dict[int, str]
    scores: dict[str, float]
    counts: dict[str, int]
    distributions: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    named: dict[int, str] = field(default_factory=dict)
    of_images: dict[int, dict[str, float]] = field(default_factory=dict)
    sums: dict[str, dict[int, list[float]]] = field(default_factory=dict)


def score_captions(
    scorer: CaptionScorer,
    records: Records,
    full: dict[int, str],
    explanations: dict[int, str],
    distributions: Mapping[str, dict[int, list[float]]] | None = None,
    named: dict[int, str] | None = None,
) -> Evaluation:
    """Score the texts of a split's images.

    Args:
        full: image id -> "<emotion> because <explanation>"; empty: the emotions are not known.
        explanations: image id -> explanation, one for every record.
        distributions, named: as in `Evaluation`.

    Raises:
        InputError: see `CaptionScorer.score`.
    """
    distributions = dict(distributions or {})
    scores, of_images, sums = scorer.score_with_sums({image: printable(text) for image, text in explanations.items()})
    accuracy, with_majority = emotion_accuracy(full, records)
    if full:
        scores["sub_acc"] = accuracy
        if with_majority:
            f1 = f1_scores(np.sum(list(emotion_counts(full, records).values()), axis=0))
            scores |= {name: f1[name] for name in ("macro_F1", "weighted_F1")}
    for source, of_source in distributions.items():
        scores |= {f"{source}_{name}": value for name, value in accuracy_and_ece(of_source, records).items()}
    scores = {name: float(value) for name, value in scores.items()}
    counts = {"images": len(explanations), "with_majority": with_majority}
    return Evaluation(full, explanations, scores, counts, distributions, named or {}, of_images, sums)


# ---- files -----------------------------------------------------------------------------------------------------------


def evaluation_file(folder: Path, kind: str, epoch: int | str, step: int) -> Path:
    """Path of a file that an evaluation writes, under its published name where it has one.

    kind: unf_captions_full, unf_captions_exp, scores_exp, emotion_head or emotion_likelihood.
    """
    return folder / f"{kind}_{epoch}_{step}_step.json"


def write_evaluation(folder: Path, evaluation: Evaluation, records: Records, epoch: int | str, step: int) -> None:
    """Write captions, scores and the distributions over the nine emotions.

    Captions are COCO's lists of {"image_id", "caption"}, with "image_name" beside; scores one flat object; the files
    emotion_head and emotion_likelihood lists of {"image_id", "image_name", "probabilities"}, nine in the order of `EMOTIONS`.
    """
    files = [
        ("unf_captions_full", "caption", evaluation.full),
        ("unf_captions_exp", "caption", evaluation.explanations),
        *((f"emotion_{source}", "probabilities", values) for source, values in evaluation.distributions.items()),
    ]
    for kind, key, values in files:
        rows = [
            {"image_id": image_id, key: value, "image_name": records[str(image_id)]["image_name"]}
            for image_id, value in values.items()
        ]
        write_json(evaluation_file(folder, kind, epoch, step), rows)
    write_json(evaluation_file(folder, "scores_exp", epoch, step), evaluation.scores)


def read_distributions(path: Path) -> dict[int, list[float]]:
    """Image id -> nine probabilities, of an evaluation's file emotion_head or emotion_likelihood.

    Raises:
        InputError: the file is missing or is not such a file.
    """
    rows = read_json(path)
    try:
        return {row["image_id"]: row["probabilities"] for row in rows}
    except (TypeError, KeyError):
        raise InputError(f"{path}: not a list of images with probabilities; score the model again") from None
