"""The scores of some of the images: those with the right emotion, those of one emotion, those of one art style."""

from typing import Any

import numpy as np

from utils.constants import EMOTIONS
from utils.data.records import Records, dominant_emotion
from utils.evaluation.bootstrap import ImageScores

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
