"""What one evaluation brought: texts and scores. No torch here: texts of other programs are scored too."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cococaption import CaptionScorer
from cococaption.tokenizer import printable
from utils.data.records import Records
from utils.evaluation.emotion_metrics import emotion_accuracy, emotion_head_scores


@dataclass
class Evaluation:
    """What one evaluation brought.

    full: image id -> whole generated text; explanations: image id -> its explanation; scores: as fractions 0..1 (CIDEr
    0..10); counts: images, and images with a majority emotion that sub_acc rests on; heads: image id -> the emotion head's
    nine probabilities, empty without that head; likelihoods: image id -> the shares of the nine emotions by the likelihood
    of their names, with --gallery only; of_images: image id -> the caption scores of that image alone; sums: as
    `CaptionScorer.score_with_sums`. full is empty where the explanations came without emotions.
    """

    full: dict[int, str]
    explanations: dict[int, str]
    scores: dict[str, float]
    counts: dict[str, int]
    heads: dict[int, list[float]] = field(default_factory=dict)
    likelihoods: dict[int, list[float]] = field(default_factory=dict)
    of_images: dict[int, dict[str, float]] = field(default_factory=dict)
    sums: dict[str, dict[int, list[float]]] = field(default_factory=dict)


def score_captions(
    scorer: CaptionScorer,
    records: Records,
    full: Mapping[int, str],
    explanations: Mapping[int, str],
    heads: Mapping[int, list[float]] | None = None,
    likelihoods: Mapping[int, list[float]] | None = None,
) -> Evaluation:
    """Score the texts of a split's images.

    Args:
        full: image id -> "<emotion> because <explanation>"; empty: the emotions are not known.
        explanations: image id -> explanation, one for every record.
        heads, likelihoods: as in `Evaluation`.

    Raises:
        InputError: see `CaptionScorer.score`.
    """
    heads, likelihoods = dict(heads or {}), dict(likelihoods or {})
    scores, of_images, sums = scorer.score_with_sums({image: printable(text) for image, text in explanations.items()})
    counts = {"images": len(explanations), "with_majority": emotion_accuracy(full, records)[1]}
    if full:
        scores["sub_acc"] = emotion_accuracy(full, records)[0]
    if heads:
        head = emotion_head_scores(np.array(list(heads.values())), list(heads), records)
        scores |= {name: head[name] for name in ("head_acc", "head_ece")}
    scores = {name: float(value) for name, value in scores.items()}
    return Evaluation(dict(full), dict(explanations), scores, counts, heads, likelihoods, of_images, sums)
