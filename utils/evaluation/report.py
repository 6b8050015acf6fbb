"""What --eval_only says of a checkpoint: every score of the paper, with the facts that make them comparable."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cococaption import CaptionScorer
from utils.command_line import checkpoint_config, recorded_settings
from utils.constants import EMOTION_INDEX, TEST_SETS
from utils.data.images import split_name
from utils.data.records import Records, read_records, whole_training_split
from utils.data.untrusted_files import vocabulary_path
from utils.data.vad_lexicon import Lexicon
from utils.errors import InputError
from utils.evaluation.baselines import baselines
from utils.evaluation.bootstrap import intervals
from utils.evaluation.emotion_metrics import (
    alignment_of_images,
    calibration_of_images,
    confusion_matrix,
    distribution_distances,
    diversity,
    dominant_emotions,
    emotion_alignment,
    max_lcs,
    named_emotion,
    vad_distances,
)
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.image_scores import group_scores, image_scores, references_hash, write_images
from utils.evaluation.tables import write_report
from utils.evaluation.text_metrics import text_diversity
from utils.files import read_json, sha256

if TYPE_CHECKING:
    from models.text2emotion import Text2Emotion
    from utils.evaluation.clip_score import ClipScorer


# ---- What --eval_only says of a checkpoint: every score of the paper, with the facts that make them ------------------


def report_checkpoint(
    args: argparse.Namespace,
    evaluation: Evaluation,
    records: Records,
    fingerprints: dict[str, Any],
    train: "TrainingTexts",
    lexicon: Lexicon | None,
    scorer: CaptionScorer,
    judge: "EmotionClassifier | None",
    clip: "ClipScorer | None" = None,
) -> str:
    """Write report.json and report.md beside the captions; returns the table to print.

    Args:
        records: the scored split. fingerprints: of the run, see utils/training/fingerprints.py. train: `training_texts`.
        scorer: it has the reference explanations.
        judge: the text-to-emotion classifier of --text2emotion, for emotion alignment.
        clip: the CLIP model of --clip_score.
    """
    fingerprints = {
        "checkpoint": str(checkpoint_config(args).parent),
        "image_encoder_sha256": fingerprints["image_encoder_sha256"],
        "decoder_sha256": fingerprints["decoder_sha256"],
        "lemmatizer": args.lemmatizer,
        "num_beams": args.num_beams,
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
        train,
        fingerprints,
        lexicon,
        judge,
        clip,
        args.append_to,
    )


class TrainingTexts(NamedTuple):
    """What novelty and images shared with training are measured against: the file and its records, None where there are none.

    note: what the report has to say of it.
    """

    path: Path | None = None
    records: Records | None = None
    note: str | None = None


def training_texts(args: argparse.Namespace) -> TrainingTexts:
    """Those of --nle_data_train_path; without the flag those of the checkpoint's record, if they are still the same.

    The recorded file is looked for at its place and beside the scored split.

    Raises:
        InputError: the file of --nle_data_train_path is no split.
    """
    record = recorded_settings(args) or {"flags": {}, "fingerprints": {}}
    name, digest = (record["fingerprints"].get(fact) for fact in ("training_texts", "training_texts_sha256"))
    source = checkpoint_config(args).parent
    if args.nle_data_train_path is not None:
        path = whole_training_split(args.nle_data_train_path)
        note = f"{path}: not what {source} was trained on; max-LCS and shared images go by it, as --nle_data_train_path says"
        return TrainingTexts(path, read_records(path), None if digest in (None, sha256(path)) else note)
    if digest is None:
        problem = f"{source} does not record its training texts"
    else:
        recorded = Path(str(record["flags"].get("nle_data_train_path"))).parent / str(name)
        places = (recorded, args.nle_data_val_path.with_name(recorded.name))
        for path in places:
            if path.is_file() and sha256(path) == digest:
                return TrainingTexts(path, read_records(path))
        problem = f"{recorded}: the training texts of {source} have {'changed' if recorded.is_file() else 'gone'}"
    return TrainingTexts(
        note=f"{problem}: max-LCS is left out, and shared images were not looked for; name them with --nle_data_train_path"
    )


def classifier_name(path: Path, vocabulary: Path | None = None) -> str:
    """What a report calls a text-to-emotion classifier: its file's name, and the hashes of what it computes with.

    vocabulary: of --vocabulary.
    """
    vocabulary = vocabulary_path(path, vocabulary)
    return f"{path.name} {sha256(path)[:12]}" + (f", vocabulary {sha256(vocabulary)[:12]}" if vocabulary else "")


class EmotionClassifier(NamedTuple):
    """The text-to-emotion classifier, its `classifier_name` and its vocabulary."""

    name: str
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
    train: TrainingTexts,
    fingerprints: dict,
    lexicon: Lexicon | None = None,
    judge: EmotionClassifier | None = None,
    clip: "ClipScorer | None" = None,
    append_to: Path | None = None,
) -> str:
    """Write the report to `path` (JSON), the same as Markdown, and the scores of single images beside; returns the table.

    Args:
        split: the file of `records`. scorer: it has the reference explanations. fingerprints: written along. Others as
            `report_checkpoint`.
    """
    explanations, references = list(evaluation.explanations.values()), scorer.references
    of_scored = [text for image in evaluation.explanations for text in references[image]]
    scores = evaluation.scores | diversity(explanations) | text_diversity(explanations, of_scored)
    values: dict[str, dict[int, float]] = {}
    sums: dict[str, dict[int, list[float]]] = {}
    for way, distributions in evaluation.distributions.items():
        values |= {f"{way}_{name}": of for name, of in distribution_distances(distributions, records).items()}
        values[f"{way}_acc"], sums[f"{way}_ece"] = calibration_of_images(distributions, records)
    if evaluation.named:
        answers = dominant_emotions(records)
        values["text_acc"] = {image: evaluation.named[image] == answer for image, answer in answers.items()}
    if lexicon is not None:
        values["vad_distance"] = vad_distances(evaluation.explanations, references, lexicon.values)
    classifier_name = None
    if judge is not None:
        predicted = judge.emotions(evaluation.explanations)
        votes = {int(image_id): record["emotions"] for image_id, record in records.items()}
        alignment = emotion_alignment(predicted, votes, judge=judge.name)
        classifier_name = alignment.pop("judge")
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
    if train.records is not None:
        learnt = [text for record in train.records.values() for text in record["explanations"]]
        values["max_lcs"] = dict(zip(evaluation.explanations, max_lcs(explanations, learnt), strict=True))
    scores |= {name: sum(of.values()) / len(of) for name, of in values.items() if of}
    of_each = image_scores(evaluation, records, values, sums)
    report = {
        "test_set": test_set,
        "images": evaluation.counts["images"],
        "images_with_majority": evaluation.counts["with_majority"],
        "references_per_image": round(len(of_scored) / len(evaluation.explanations), 2),
        "evaluated_file": split.name,
        "evaluated_sha256": sha256(split),
        "references_sha256": sha256(scorer.annotation_file),
        "training_texts": None if train.path is None else train.path.name,
        "training_texts_sha256": None if train.path is None else sha256(train.path),
        "lexicon": None if lexicon is None else lexicon.path.name,
        "lexicon_sha256": None if lexicon is None else lexicon.sha256,
        "judge": classifier_name,
        "clip_score": None if clip is None else clip.name,
        **fingerprints,
        "warnings": split_warnings(split, records, train.records, test_set, train.note),
        "confusion_matrix": confusion_matrix(evaluation.full, records).tolist() if evaluation.full else None,
        "scores": scores,
        "intervals": intervals(of_each),
        **baselines(scorer, of_each.images, records),
        **group_scores(of_each, records),
    }
    texts = evaluation.full or evaluation.explanations
    write_images(path, of_each, records, texts, references_hash(references, of_each.images))
    return write_report(path.parent, report, append_to, path.name)


# ---- What speaks against a scored file being the test split that it is said to be ------------------------------------


V1_TEST_IMAGES = 7933


def split_warnings(
    evaluated_path: str | Path,
    records: Records,
    train_records: Records | None,
    test_set: str | None,
    note: str | None = None,
) -> list[str]:
    """What speaks against the evaluated file being the test split that it is said to be.

    Args:
        evaluated_path: the JSON split that was scored.
        records: its records.
        train_records: the training images, or None when there is no such file, which is said too.
        test_set: what the run claims to score, one of `TEST_SETS`, or None when it claims nothing (validation).
        note: a finding about the training file itself, which takes the place of saying that there is none.

    Returns:
        one line for each finding; empty when there is none.
    """
    path = Path(evaluated_path)
    found = []
    name = path.stem.lower()
    if test_set is not None:
        for split in ("val", "train"):
            if split in name.split("_"):
                found.append(f"{path.name} is scored as test set {test_set}, but its name says {split}")
        named = [other for other in TEST_SETS if other != test_set and other in name]
        if named and test_set not in name:
            found.append(f"{path.name} is scored as test set {test_set}, but its name says {named[0]}")
        if test_set == "v1.0" and len(records) != V1_TEST_IMAGES:
            found.append(f"{path.name} has {len(records)} images, the v1.0 test split has {V1_TEST_IMAGES}")
        found += _shared_with_siblings(path, records)
    if note is not None:
        found.append(note)
    elif train_records is None and test_set is not None:
        found.append("no training file was found, so images shared with training were not looked for")
    if train_records is not None:
        found += _shared(path, records, train_records, "the training file")
    return found


def _shared_with_siblings(path: Path, records: Records) -> list[str]:
    """Images in common with a validation split that lies beside the evaluated file."""
    found = []
    for sibling in sorted(path.parent.glob("*_val.json")):
        if sibling.resolve() == path.resolve():
            continue
        try:
            others = read_json(sibling)
        except InputError:
            continue
        if isinstance(others, dict):
            found += _shared(path, records, others, sibling.name)
    return found


def _shared(path: Path, records: Records, others: dict, where: str) -> list[str]:
    """By image id, and by name without extension: ids of other preprocessing differ for the same image."""
    names = {split_name(str(record.get("image_name")))[0] for record in others.values() if isinstance(record, dict)}
    shared = [
        record["image_name"]
        for image, record in records.items()
        if image in others or split_name(record["image_name"])[0] in names
    ]
    if not shared:
        return []
    return [f"{len(shared)} of the {len(records)} images of {path.name} are in {where} as well, e.g. {shared[0]}"]
