"""What one evaluation brought: texts and scores. No torch here: texts of other programs are scored too."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cococaption import CaptionScorer
from cococaption.tokenizer import printable
from utils.data.records import Records
from utils.evaluation.emotion_metrics import accuracy_and_ece, emotion_accuracy


@dataclass
class Evaluation:
    """What one evaluation brought.

    full: image id -> whole generated text; explanations: image id -> its explanation; scores: as fractions 0..1 (CIDEr
    0..10); counts: images, and images with a majority emotion that sub_acc rests on; distributions: "head" (by the
    emotion head) and "likelihood" (by the likelihood of the emotions' names), where they were asked for -> image id -> nine
    distributions that sum to 1; named: image id -> what the model's own text says the emotion is, where the captions were written
    for another one; of_images: image id -> the caption scores of that image alone; sums: as
    `CaptionScorer.score_with_sums`. full is empty where the explanations came without emotions.
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
    full: Mapping[int, str],
    explanations: Mapping[int, str],
    distributions: Mapping[str, dict[int, list[float]]] | None = None,
    named: Mapping[int, str] | None = None,
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
    counts = {"images": len(explanations), "with_majority": emotion_accuracy(full, records)[1]}
    if full:
        scores["sub_acc"] = emotion_accuracy(full, records)[0]
    for way, of_way in distributions.items():
        scores |= {f"{way}_{name}": value for name, value in accuracy_and_ece(of_way, records).items()}
    scores = {name: float(value) for name, value in scores.items()}
    return Evaluation(dict(full), dict(explanations), scores, counts, distributions, dict(named or {}), of_images, sums)
