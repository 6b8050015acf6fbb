"""What --eval_only says of a checkpoint: every score of the paper, with the facts that make them comparable."""

import argparse
from pathlib import Path

from models.text2emotion import Text2Emotion, predict_emotions
from utils.data.records import Records, read_records
from utils.data.vad_lookup import Lexicon
from utils.evaluation.emotion_metrics import confusion_matrix, diversity, emotion_alignment, max_lcs
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.report_tables import write_report
from utils.evaluation.split_warnings import split_warnings
from utils.files import sha256

WHOLE_TRAINING_SPLIT = "artEmisX_train.json"  # the training file itself may hold only the images with several emotions


def report_checkpoint(
    args: argparse.Namespace,
    evaluation: Evaluation,
    records: Records,
    lexicon: Lexicon | None,
    references: int,
    judge: tuple[Text2Emotion, dict[str, int]] | None,
) -> str:
    """Write report.json and report.md beside the captions; returns the table to print.

    Args:
        records: the scored split. references: how many reference explanations it was scored against.
        judge: the text-to-emotion classifier of --text2emotion and its vocabulary, for emotion alignment.
    """
    explanations = list(evaluation.explanations.values())
    train_path = training_split(args)
    train = read_records(train_path) if train_path is not None else None
    scores = evaluation.scores | diversity(explanations)
    judge_name = None
    if judge is not None:
        alignment = judge_alignment(args, evaluation, records, *judge)
        judge_name = alignment.pop("judge")
        scores |= alignment
    warnings = split_warnings(args.nle_data_val_path, records, train, args.test_set)
    if train is not None:
        scores["max_lcs"] = max_lcs(
            explanations, [text for record in train.values() for text in record["explanations"]]
        )
    report = {
        "test_set": args.test_set,
        "images": evaluation.counts["images"],
        "images_with_majority": evaluation.counts["with_majority"],
        "references_per_image": round(references / len(records), 2),
        "evaluated_file": args.nle_data_val_path.name,
        "evaluated_sha256": sha256(args.nle_data_val_path),
        "checkpoint": str(args.ckpt_path / f"nle_model_{args.load_from_epoch}"),
        "lexicon": None if lexicon is None else lexicon.path.name,
        "lexicon_sha256": None if lexicon is None else lexicon.sha256,
        "lemmatizer": args.lemmatizer,
        "judge": judge_name,
        "seed": args.seed,
        "warnings": warnings,
        "confusion_matrix": confusion_matrix(evaluation.full, records).tolist(),
        "scores": scores,
    }
    return write_report(args.caption_save_path, report, args.append_to)


def training_split(args: argparse.Namespace) -> Path | None:
    """The training texts that novelty and shared images are measured against, or None when there are none."""
    for path in (args.nle_data_train_path.with_name(WHOLE_TRAINING_SPLIT), args.nle_data_train_path):
        if path.is_file():
            return path
    return None


def judge_alignment(
    args: argparse.Namespace,
    evaluation: Evaluation,
    records: Records,
    classifier: Text2Emotion,
    vocabulary: dict[str, int],
) -> dict:
    """Emotion alignment by the text-to-emotion classifier of --text2emotion."""
    texts = list(evaluation.explanations.values())
    predicted = dict(zip(evaluation.explanations, predict_emotions(classifier, texts, vocabulary), strict=True))
    votes = {int(image_id): record["emotions"] for image_id, record in records.items()}
    return emotion_alignment(predicted, votes, judge=f"{args.text2emotion.name} {sha256(args.text2emotion)[:12]}")
