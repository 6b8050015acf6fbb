"""What --eval_only says of a checkpoint: every score of the paper, with the facts that make them comparable."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cococaption import CaptionScorer
from utils.command_line import checkpoint_config
from utils.constants import EMOTION_INDEX
from utils.data.records import Records, read_records
from utils.data.vad_lookup import Lexicon
from utils.evaluation.baselines import baselines
from utils.evaluation.bootstrap import intervals
from utils.evaluation.calibration import calibration_of_images
from utils.evaluation.distances import distribution_distances, vad_distances
from utils.evaluation.emotion_metrics import (
    alignment_of_images,
    confusion_matrix,
    diversity,
    dominant_emotions,
    emotion_alignment,
    max_lcs,
    named_emotion,
)
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.group_scores import group_scores
from utils.evaluation.image_scores import image_scores, references_hash, write_images
from utils.evaluation.report_tables import write_report
from utils.evaluation.split_warnings import split_warnings
from utils.evaluation.text_diversity import text_diversity
from utils.files import sha256

if TYPE_CHECKING:
    from models.text2emotion import Text2Emotion
    from utils.evaluation.clip_score import ClipScorer

WHOLE_TRAINING_SPLIT = "artEmisX_train.json"  # the training file itself may hold only the images with several emotions


def report_checkpoint(
    args: argparse.Namespace,
    evaluation: Evaluation,
    records: Records,
    lexicon: Lexicon | None,
    scorer: CaptionScorer,
    judge: "tuple[Text2Emotion, dict[str, int]] | None",
    clip: "ClipScorer | None" = None,
) -> str:
    """Write report.json and report.md beside the captions; returns the table to print.

    Args:
        records: the scored split. scorer: it has the reference explanations.
        judge: the text-to-emotion classifier of --text2emotion and its vocabulary, for emotion alignment.
        clip: the CLIP model of --clip_score.
    """
    train_path = training_split(args)
    facts = {
        "checkpoint": str(checkpoint_config(args).parent),
        "lemmatizer": args.lemmatizer,
        "seed": args.seed,
        "emotion_from": args.emotion_from,
    }
    return report_texts(
        args.caption_save_path / "report.json",
        args.nle_data_val_path,
        args.test_set,
        evaluation,
        records,
        scorer,
        None if train_path is None else read_records(train_path),
        facts,
        lexicon,
        None if judge is None else Judge(args.text2emotion, *judge),
        clip,
        args.append_to,
    )


class Judge(NamedTuple):
    """The text-to-emotion classifier, its file and its vocabulary."""

    path: Path
    classifier: "Text2Emotion"
    vocabulary: dict[str, int]

    def emotions(self, texts: Mapping[int, str]) -> dict[int, str]:
        """Image id -> the emotion that the classifier finds in the image's text."""
        from models.text2emotion import predict_emotions  # it imports torch

        return dict(zip(texts, predict_emotions(self.classifier, list(texts.values()), self.vocabulary), strict=True))


def report_texts(
    path: Path,
    split: Path,
    test_set: str | None,
    evaluation: Evaluation,
    records: Records,
    scorer: CaptionScorer,
    train: Records | None,
    facts: dict,
    lexicon: Lexicon | None = None,
    judge: Judge | None = None,
    clip: "ClipScorer | None" = None,
    append_to: Path | None = None,
) -> str:
    """Write the report to `path` (JSON), the same as Markdown, and the scores of single images beside; returns the table.

    Args:
        split: the file of `records`. scorer: it has the reference explanations. train: the training texts.
        facts: written along. Others as `report_checkpoint`.
    """
    explanations, references = list(evaluation.explanations.values()), scorer.references
    of_scored = [text for image in evaluation.explanations for text in references[image]]
    scores = evaluation.scores | diversity(explanations) | text_diversity(explanations, of_scored)
    values: dict[str, dict[int, float]] = {}
    sums: dict[str, dict[int, list[float]]] = {}
    for way, shares in evaluation.shares.items():
        values |= {f"{way}_{name}": of for name, of in distribution_distances(shares, records).items()}
        values[f"{way}_acc"], sums[f"{way}_ece"] = calibration_of_images(shares, records)
    if evaluation.named:
        answers = dominant_emotions(records)
        values["text_acc"] = {image: evaluation.named[image] == answer for image, answer in answers.items()}
    if lexicon is not None:
        values["vad_distance"] = vad_distances(evaluation.explanations, references, lexicon.values)
    judge_name = None
    if judge is not None:
        predicted = judge.emotions(evaluation.explanations)
        votes = {int(image_id): record["emotions"] for image_id, record in records.items()}
        alignment = emotion_alignment(predicted, votes, judge=f"{judge.path.name} {sha256(judge.path)[:12]}")
        judge_name = alignment.pop("judge")
        scores |= alignment
        of_images = alignment_of_images(predicted, votes)
        values |= dict(zip(("EA_more_than_half", "EA_at_least_half"), of_images, strict=True))
        named = {image: named_emotion(text) for image, text in evaluation.full.items()}
        agreed = {image: predicted[image] == name for image, name in named.items() if name in EMOTION_INDEX}
        if agreed:
            values["self_consistency"] = agreed
    if clip is not None:
        names = {image: records[str(image)]["image_name"] for image in evaluation.explanations}
        values |= clip.scores(evaluation.explanations, references, names)
    if train is not None:
        training_texts = [text for record in train.values() for text in record["explanations"]]
        values["max_lcs"] = dict(zip(evaluation.explanations, max_lcs(explanations, training_texts), strict=True))
    scores |= {name: sum(of.values()) / len(of) for name, of in values.items() if of}
    of_each = image_scores(evaluation, records, values, sums)
    report = {
        "test_set": test_set,
        "images": evaluation.counts["images"],
        "images_with_majority": evaluation.counts["with_majority"],
        "references_per_image": round(sum(map(len, references.values())) / len(records), 2),
        "evaluated_file": split.name,
        "evaluated_sha256": sha256(split),
        "lexicon": None if lexicon is None else lexicon.path.name,
        "lexicon_sha256": None if lexicon is None else lexicon.sha256,
        "judge": judge_name,
        "clip_score": None if clip is None else clip.name,
        **facts,
        "warnings": split_warnings(split, records, train, test_set),
        "confusion_matrix": confusion_matrix(evaluation.full, records).tolist() if evaluation.full else None,
        "scores": scores,
        "intervals": intervals(of_each),
        **baselines(scorer, of_each.images, records),
        **group_scores(of_each, records),
    }
    texts = evaluation.full or evaluation.explanations
    write_images(path, of_each, records, texts, references_hash(references, of_each.images))
    return write_report(path.parent, report, append_to, path.name)


def training_split(args: argparse.Namespace) -> Path | None:
    """The training texts that novelty and shared images are measured against, or None when there are none."""
    for path in (args.nle_data_train_path.with_name(WHOLE_TRAINING_SPLIT), args.nle_data_train_path):
        if path.is_file():
            return path
    return None
