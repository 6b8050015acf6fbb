"""The test report of a checkpoint or of other programs' captions: every score of the paper, and the facts to compare by."""

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
from utils.evaluation.emotion_metrics import (
    calibration_of_images,
    confusion_matrix,
    distribution_distances,
    dominant_emotions,
    emotion_alignment,
    named_emotion,
    vad_distances,
)
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.image_scores import group_scores, image_scores, intervals, references_hash, write_images
from utils.evaluation.tables import write_report
from utils.evaluation.text_metrics import max_lcs, text_diversity
from utils.files import MANIFEST, sha256

if TYPE_CHECKING:
    from models.text2emotion import Text2Emotion
    from utils.evaluation.clip_score import ClipScorer

V1_TEST_IMAGES = 7933


class TrainingTexts(NamedTuple):
    """The training split that novelty is measured against and that images are compared with; None where there is none.

    note: a warning about it for the report.
    """

    path: Path | None = None
    records: Records | None = None
    note: str | None = None


class EmotionClassifier(NamedTuple):
    """The text-to-emotion classifier, its `classifier_name` and its vocabulary."""

    name: str
    classifier: "Text2Emotion"
    vocabulary: dict[str, int]

    @classmethod
    def load(cls, path: Path, vocabulary: Path | None) -> "EmotionClassifier":
        """Read the files of --text2emotion and --vocabulary; InputError where they are damaged or do not fit each other."""
        from utils.data.text2emotion_files import load_text2emotion  # it imports torch

        return cls(classifier_name(path, vocabulary), *load_text2emotion(path, vocabulary))

    def emotions(self, texts: Mapping[int, str]) -> dict[int, str]:
        """Image id -> the emotion that the classifier finds in the image's text."""
        from models.text2emotion import predict_emotions  # it imports torch

        return dict(zip(texts, predict_emotions(self.classifier, list(texts.values()), self.vocabulary), strict=True))


def classifier_name(path: Path, vocabulary: Path | None = None) -> str:
    """The name of a text-to-emotion classifier in reports: its file's name, and the hashes of what it computes with.

    vocabulary: of --vocabulary.
    """
    vocabulary = vocabulary_path(path, vocabulary)
    return f"{path.name} {sha256(path)[:12]}" + (f", vocabulary {sha256(vocabulary)[:12]}" if vocabulary else "")


def training_texts(args: argparse.Namespace) -> TrainingTexts:
    """Those of --nle_data_train_path; without the flag those of the checkpoint's record, if they are still the same.

    The recorded file is looked for at its place and beside the scored split.

    Raises:
        InputError: the file of --nle_data_train_path is not a split.
    """
    record = recorded_settings(args) or {"flags": {}, "fingerprints": {}}
    name, digest = (record["fingerprints"].get(key) for key in ("training_texts", "training_texts_sha256"))
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


# ---- scores and report -----------------------------------------------------------------------------------------------


def checkpoint_sha256(folder: Path) -> str | None:
    """SHA-256 of a checkpoint's manifest, which has those of its files; None for the authors' and for exported models."""
    return sha256(folder / MANIFEST) if (folder / MANIFEST).is_file() else None


def checkpoint_facts(args: argparse.Namespace, fingerprints: dict[str, Any]) -> dict[str, Any]:
    """Facts about a scored checkpoint for its report. fingerprints: of the run, see utils/training/fingerprints.py."""
    return {
        "checkpoint": str(checkpoint_config(args).parent),
        "checkpoint_sha256": checkpoint_sha256(checkpoint_config(args).parent),
        "image_encoder_sha256": fingerprints["image_encoder_sha256"],
        "decoder_sha256": fingerprints["decoder_sha256"],
        "lemmatizer": args.lemmatizer,
        "decoding": _decoding(args),
        "seed": args.seed,
        "emotion_from": args.emotion_from,
    }


def _decoding(args: argparse.Namespace) -> str:
    """How the captions were decoded."""
    if args.rerank:
        by = f"{args.rerank} {args.rerank_model}" if args.rerank == "clip" else args.rerank
        text = f"best of {args.num_samples} samples by {by} (temperature {args.temperature:g}, top_p {args.top_p:g})"
    else:
        text = "greedy" if args.num_beams == 1 else f"beam search with {args.num_beams} beams"
    return f"{text}, without a 25th token" if args.drop_last_token else text


def write_test_report(
    path: Path,
    split: Path,
    records: Records,
    evaluation: Evaluation,
    scorer: CaptionScorer,
    facts: dict[str, Any],
    *,
    test_set: str | None,
    training: TrainingTexts,
    lexicon: Lexicon | None = None,
    classifier: EmotionClassifier | None = None,
    clip: "ClipScorer | None" = None,
    append_to: Path | None = None,
) -> str:
    """Compute the scores beyond COCO-caption's, write the report and the scores of images; returns the table to print.

    Args:
        path: of the report (JSON); the same as Markdown and the scores of single images are written beside it.
        split: the file of `records`.
        scorer: it has the reference explanations.
        facts: about the captions, written along.
        test_set: name of the scored set as the user gave it, one of `TEST_SETS`, or None.
        training, lexicon, classifier, clip: for novelty, VAD distance, emotion alignment and CLIPScore.
        append_to: CSV file that gets the report as a row.
    """
    references = scorer.references
    values, sums = values_of_images(evaluation, records, references, training, lexicon, classifier, clip)
    reference_texts = [text for image in evaluation.explanations for text in references[image]]
    scores = evaluation.scores | text_diversity(list(evaluation.explanations.values()), reference_texts)
    for name in ("EA_more_than_half", "EA_at_least_half"):
        if name in values:
            scores |= {name: 0.0, f"{name}_images": len(values[name])}
    scores |= {name: sum(of_images.values()) / len(of_images) for name, of_images in values.items() if of_images}
    of_images = image_scores(evaluation, records, values, sums)
    report = {
        "test_set": test_set,
        "images": evaluation.counts["images"],
        "images_with_majority": evaluation.counts["with_majority"],
        "references_per_image": round(len(reference_texts) / len(evaluation.explanations), 2),
        "evaluated_file": split.name,
        "evaluated_sha256": sha256(split),
        "references_sha256": sha256(scorer.annotation_file),
        "training_texts": None if training.path is None else training.path.name,
        "training_texts_sha256": None if training.path is None else sha256(training.path),
        "lexicon": None if lexicon is None else lexicon.path.name,
        "lexicon_sha256": None if lexicon is None else lexicon.sha256,
        "emotion_classifier": None if classifier is None else classifier.name,
        "clip_score": None if clip is None else clip.name,
        **facts,
        "warnings": split_warnings(split, records, training.records, test_set, training.note),
        "confusion_matrix": confusion_matrix(evaluation.full, records).tolist() if evaluation.full else None,
        "emotions": of_images.emotion_table() if "emotions" in of_images.sums else None,
        "scores": scores,
        "intervals": intervals(of_images),
        **baselines(scorer, of_images.images, records),
        **group_scores(of_images, records),
    }
    captions = evaluation.full or evaluation.explanations
    write_images(path, of_images, records, captions, references_hash(references, of_images.images))
    return write_report(path.parent, report, append_to, path.name)


def values_of_images(
    evaluation: Evaluation,
    records: Records,
    references: Mapping[int, list[str]],
    training: TrainingTexts,
    lexicon: Lexicon | None,
    classifier: EmotionClassifier | None,
    clip: "ClipScorer | None",
) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, list[float]]]]:
    """Score -> image id -> value, of the images that count: the split's score is their mean; and the same of what is summed."""
    explanations, full = evaluation.explanations, evaluation.full
    values: dict[str, dict[int, float]] = {}
    sums: dict[str, dict[int, list[float]]] = {}
    for source, distributions in evaluation.distributions.items():
        distances = distribution_distances(distributions, records)
        values |= {f"{source}_{name}": of_images for name, of_images in distances.items()}
        values[f"{source}_acc"], sums[f"{source}_ece"] = calibration_of_images(distributions, records)
    if evaluation.named:
        answers = dominant_emotions(records)
        values["text_acc"] = {image: evaluation.named[image] == answer for image, answer in answers.items()}
    if lexicon is not None:
        values["vad_distance"] = vad_distances(explanations, references, lexicon.values)
    if classifier is not None:
        predicted = classifier.emotions(explanations)
        values |= emotion_alignment(predicted, {int(image): record["emotions"] for image, record in records.items()})
        named = {image: named_emotion(text) for image, text in full.items()}
        consistent = {image: predicted[image] == name for image, name in named.items() if name in EMOTION_INDEX}
        if consistent:
            values["self_consistency"] = consistent
    if clip is not None:
        names = {image: records[str(image)]["image_name"] for image in explanations}
        values |= clip.scores(explanations, references, names)
    if training.records is not None:
        texts = [text for record in training.records.values() for text in record["explanations"]]
        values["max_lcs"] = dict(zip(explanations, max_lcs(list(explanations.values()), texts), strict=True))
    return values, sums


# ---- doubts about the scored file ------------------------------------------------------------------------------------


def split_warnings(
    path: Path,
    records: Records,
    training_records: Records | None,
    test_set: str | None,
    note: str | None = None,
) -> list[str]:
    """Reasons to doubt that the scored file is the test split that `test_set` names, a line each.

    Args:
        path: the JSON split that was scored.
        records: its records.
        training_records: the training images, or None when there is no such file, which is a finding too.
        test_set: what the run claims to score, one of `TEST_SETS`, or None when it claims nothing (validation).
        note: a finding about the training file itself; it replaces the one that there is none.
    """
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
        for sibling in sorted(path.parent.glob("*_val.json")):
            if sibling.resolve() != path.resolve():
                try:
                    found += _shared_images(path, records, read_records(sibling), sibling.name)
                except InputError:
                    continue  # not a split
    if note is not None:
        found.append(note)
    elif training_records is None and test_set is not None:
        found.append("no training file was found, so images shared with training were not looked for")
    if training_records is not None:
        found += _shared_images(path, records, training_records, "the training file")
    return found


def _shared_images(path: Path, records: Records, others: Records, where: str) -> list[str]:
    """By image id, and by name without extension: ids of other preprocessing differ for the same image."""
    names = {split_name(record["image_name"])[0] for record in others.values()}
    shared = [
        record["image_name"]
        for image, record in records.items()
        if image in others or split_name(record["image_name"])[0] in names
    ]
    if not shared:
        return []
    return [f"{len(shared)} of the {len(records)} images of {path.name} are in {where} as well, e.g. {shared[0]}"]
