"""Bounds for the scores: the floor of a constant answer, and the ceiling of one annotator against the others."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

from cococaption import CaptionScorer
from cococaption.references import References
from cococaption.scorer import compute_scores
from utils.constants import EMOTION_INDEX
from utils.data.records import Records, dominant_emotion

METRICS = ("bleu", "rouge", "cider")  # those that take a second; METEOR and SPICE take minutes
SEED = 2021


def baselines(scorer: CaptionScorer, images: Sequence[int], records: Records) -> dict[str, dict]:
    """ "floor" and, where an image has several references, "ceiling" -> facts, and "scores" (fractions, CIDEr 0 .. 10)."""
    references = scorer.prepared(images)
    rows = [records[str(image)] for image in images]
    found = {"floor": floor(references, rows)}
    if (references.per_image > 1).any():
        found["ceiling"] = ceiling(references, rows)
    return found


def floor(references: References, records: Sequence[dict]) -> dict:
    """The scores of one constant answer, which is chosen on the scored split itself.

    Returns:
        "emotion": the one most often chosen by the annotators (in a tie the first of `EMOTIONS`); "sentence": the
        tokenised reference that occurs most often (in a tie the first); "scores": ROUGE_L, Bleu_1 ... and sub_acc, over
        the images where one emotion has more than half of the votes.
    """
    votes = Counter(emotion for record in records for emotion in record["emotions"])
    emotion = min(votes, key=lambda name: (-votes[name], EMOTION_INDEX[name]))
    sentence = Counter(text for of_image in references.texts for text in of_image).most_common(1)[0][0]
    majority = [dominant_emotion(record["origin_emotion_distribution"]) for record in records]
    right = [answer == emotion for answer in majority if answer]
    scores = _caption_scores(references, [sentence] * len(references.texts))
    if right:
        scores["sub_acc"] = sum(right) / len(right)
    return {"emotion": emotion, "sentence": sentence, "scores": scores}


def ceiling(references: References, records: Sequence[dict]) -> dict:
    """The scores of one reference of each image, drawn at random, against the image's others.

    Captions are scored against one reference more, which raises their scores a little. sub_acc asks whether one
    annotator's emotion, drawn too, is that of more than half of the other annotators of the image, where there is one.

    Returns:
        "images": how many have several references; "scores".
    """
    draw = random.Random(SEED)
    candidates, others, per_image = [], [], []
    for texts in references.texts:
        if len(texts) > 1:
            chosen = draw.randrange(len(texts))
            candidates.append(texts[chosen])
            others += texts[:chosen] + texts[chosen + 1 :]
            per_image.append(len(texts) - 1)
    scores = _caption_scores(References(others, np.array(per_image, np.int64)), candidates)
    agreed = []
    for record in records:
        rest = list(record["emotions"])
        emotion = rest.pop(draw.randrange(len(rest)))
        answer, count = Counter(rest).most_common(1)[0] if rest else ("", 0)
        if 2 * count > len(rest):
            agreed.append(emotion == answer)
    if agreed:
        scores["sub_acc"] = sum(agreed) / len(agreed)
    return {"images": len(candidates), "scores": scores}


def _caption_scores(references: References, tokenized: Sequence[str]) -> dict[str, float]:
    metrics = METRICS if references.lengths.any() else METRICS[:2]  # CIDEr is not defined without a word
    return compute_scores(references, tokenized, metrics)[0]
