"""The test report of several runs: mean and standard deviation beside the published scores.

It also scores the captions of other programs.

python -m utils.report runs/a runs/b runs/c
python -m utils.report --predictions captions.json --records artEmisX_test.json --annFileExp artEmisX_test_annot_exp.json
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from cococaption import CaptionScorer
from utils.constants import DEFAULT_METRICS, METRICS, TEST_SETS
from utils.data.records import read_records, whole_training_split
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError, OneLineParser, run_script
from utils.evaluation.evaluation import score_captions
from utils.evaluation.image_scores import images_path
from utils.evaluation.predictions import KINDS, is_full, quoted, read_predictions, unread
from utils.evaluation.report import EmotionClassifier, TrainingTexts, write_test_report
from utils.evaluation.tables import SAME, aggregate, format_summary, in_words, read_report
from utils.files import check_append_to, check_place, sha256, write_json
from utils.runs import report_file

WHOLE_TRAINING_SPLIT = "artEmisX_train.json"


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.report",
        description="Mean and standard deviation of several runs' test reports; or, with --predictions, the test report of "
        "captions that any program wrote.",
    )
    parser.add_argument(
        "reports", nargs="*", type=Path, metavar="RUN", help="folders of runs with a test report, or report.json files"
    )
    parser.add_argument("--json", type=Path, help="write the summary, or the report of --predictions, to this file")
    add = parser.add_argument_group("captions of any program").add_argument
    add(
        "--predictions",
        type=Path,
        help='JSON list of {"image_id", "caption"}, or {"image_id", "emotion", "explanation"}',
    )
    add("--records", type=Path, help="the split that was captioned, e.g. artEmisX_test.json")
    add("--annFileExp", type=Path, help="its reference explanations in COCO's caption format")
    add("--captions", choices=KINDS, help='what "caption" holds: "EMOTION because ...", or the explanation alone')
    add("--metrics", nargs="+", choices=METRICS, default=DEFAULT_METRICS, help="default: %(default)s")
    add("--test_set", choices=TEST_SETS, help="name of the scored set, for the published rows")
    add("--nle_data_train_path", type=Path, help=f"training texts (default: {WHOLE_TRAINING_SPLIT} beside --records)")
    add("--text2emotion", type=Path, help="text-to-emotion classifier for emotion alignment and self-consistency")
    add("--vocabulary", type=Path, help="its vocabulary.pkl, as for artEmisX_train.py")
    add("--clip_score", metavar="MODEL", help="whole CLIP model (folder or id) for CLIPScore; needs --image_root")
    add("--image_root", type=Path, help="the images of --records, for --clip_score")
    add("--vad_lexicon", type=Path, help="VAD lexicon, for the VAD distance to the references")
    add("--append_to", type=Path, help="csv file to which the report adds its row")
    return parser


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    if args.json:
        check_place(args.json)
    if args.predictions is not None:
        score_predictions(args)
        return
    if not args.reports:
        raise InputError("no reports: name report.json files, or pass --predictions FILE")
    summaries = aggregate({str(path): read_report(path) for path in dict.fromkeys(map(report_file, args.reports))})
    print("\n\n".join([format_summary(summary) for summary in summaries]))
    if len(summaries) > 1:
        different = [fact for fact in SAME if any(summary[fact] != summaries[0][fact] for summary in summaries)]
        print(f"\n{len(summaries)} groups, not averaged with each other: the runs differ in {in_words(different)}.")
    if args.json:
        write_json(args.json, summaries, indent=1)


def score_predictions(args: argparse.Namespace) -> None:
    """--predictions: read everything first, then score, write the report and print it.

    Raises:
        InputError: a file or flag is wrong.
    """
    if args.reports:
        raise InputError("--predictions writes one report: give no report.json files with it")
    for flag in ("records", "annFileExp"):
        if getattr(args, flag) is None:
            raise InputError(f"--predictions needs --{flag} FILE, of the split that was captioned")
    if (args.clip_score is None) != (args.image_root is None):
        raise InputError("--clip_score MODEL and --image_root FOLDER go together: pass both")
    out = args.json or args.predictions.with_name(f"{args.predictions.stem}_report.json")
    for path in (out, images_path(out), out.with_suffix(".md")):
        check_place(path)
    if args.append_to:
        check_append_to(args.append_to)
    records = read_records(args.records)
    full, explanations = read_predictions(args.predictions, records, args.captions)
    training, path = TrainingTexts(), args.nle_data_train_path or args.records.with_name(WHOLE_TRAINING_SPLIT)
    if args.nle_data_train_path or path.is_file():
        path = whole_training_split(path)
        training = TrainingTexts(path, read_records(path))
    lexicon = None if args.vad_lexicon is None else read_lexicon(args.vad_lexicon)
    classifier = clip = None
    if args.text2emotion:
        classifier = EmotionClassifier.load(args.text2emotion, args.vocabulary)
    if args.clip_score:
        from utils.evaluation.clip_score import load_clip_scorer  # it imports torch

        clip = load_clip_scorer(args.clip_score, args.image_root)
    with CaptionScorer(args.annFileExp, args.metrics) as scorer:
        table = write_test_report(
            out,
            args.records,
            records,
            score_captions(scorer, records, full, explanations),
            scorer,
            {"predictions": args.predictions.name, "predictions_sha256": sha256(args.predictions)},
            test_set=args.test_set,
            training=training,
            lexicon=lexicon,
            classifier=classifier,
            clip=clip,
            append_to=args.append_to,
        )
    print(table)
    for note in notes(full, explanations, args.captions):
        print(note)
    print(f"report: {out}")


def notes(full: dict[int, str], explanations: dict[int, str], kind: str | None) -> Iterator[str]:
    """Lines about captions that name no emotion, or none that was understood. kind: of --captions."""
    if not full:
        yield "the captions name no emotion (explanations alone), so there is no ACC"
        if kind is None and (texts := unread(explanations)):
            yield (
                f"{len(texts)} of them may name one in words that are not understood, {quoted(texts)}: scored unchanged"
            )
    elif texts := {image: text for image, text in full.items() if not is_full(text)}:
        yield (
            f"{len(texts)} of {len(full)} captions do not begin with one of the nine emotions and because, "
            f"{quoted(texts)}: scored unchanged, and their emotion counts as wrong"
        )


if __name__ == "__main__":
    sys.exit(run_script(main))
