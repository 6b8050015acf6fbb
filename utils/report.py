"""The test report of several runs: mean and standard deviation beside the published scores.

It also scores the captions of other programs.

python -m utils.report runs/*/report.json
python -m utils.report --predictions captions.json --records artEmisX_test.json --annFileExp artEmisX_test_annot_exp.json
"""

import argparse
import sys
from pathlib import Path

from cococaption import CaptionScorer
from utils.constants import DEFAULT_METRICS, METRICS, TEST_SETS
from utils.data.records import read_records, whole_training_split
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError, OneLineParser, run_script
from utils.evaluation.evaluation import score_captions
from utils.evaluation.image_scores import images_path
from utils.evaluation.predictions import KINDS, doubtful, example, is_full, read_predictions
from utils.evaluation.report import EmotionClassifier, TrainingTexts, classifier_name, report_texts
from utils.evaluation.tables import SAME, aggregate, format_summary, in_words, read_report
from utils.files import check_append_to, check_place, sha256, write_json

WHOLE_TRAINING_SPLIT = "artEmisX_train.json"


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.report",
        description="Mean and standard deviation of several runs' test reports; or, with --predictions, the test report of "
        "captions that any program wrote.",
    )
    parser.add_argument("reports", nargs="*", type=Path, help="report.json files, e.g. runs/*/report.json")
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
        raise InputError("no reports: name report.json files, or give --predictions FILE")
    summaries = aggregate({str(path): read_report(path) for path in dict.fromkeys(args.reports)})
    print("\n\n".join(format_summary(summary) for summary in summaries))
    if len(summaries) > 1:
        found = [fact for fact in SAME if any(summary[fact] != summaries[0][fact] for summary in summaries)]
        print(f"\n{len(summaries)} groups, not averaged with each other: the runs differ in {in_words(found)}.")
    if args.json:
        write_json(args.json, summaries, indent=1)


def score_predictions(args: argparse.Namespace) -> None:
    """--predictions: read everything first, score, print and write the report.

    Raises:
        InputError: a file or flag is wrong.
    """
    if args.reports:
        raise InputError("--predictions makes one report: give no report.json files with it")
    for flag in ("records", "annFileExp"):
        if getattr(args, flag) is None:
            raise InputError(f"--predictions needs --{flag} FILE, of the split that was captioned")
    if (args.clip_score is None) != (args.image_root is None):
        raise InputError("--clip_score MODEL and --image_root FOLDER go together: give both")
    out = args.json or args.predictions.with_name(f"{args.predictions.stem}_report.json")
    for path in (out, images_path(out), out.with_suffix(".md")):
        check_place(path)
    if args.append_to:
        check_append_to(args.append_to)
    records = read_records(args.records)
    full, explanations = read_predictions(args.predictions, records, args.captions)
    train, train_path = TrainingTexts(), args.nle_data_train_path or args.records.with_name(WHOLE_TRAINING_SPLIT)
    if args.nle_data_train_path or train_path.is_file():
        train_path = whole_training_split(train_path)
        train = TrainingTexts(train_path, read_records(train_path))
    lexicon = None if args.vad_lexicon is None else read_lexicon(args.vad_lexicon)
    judge = None
    if args.text2emotion:
        from utils.data.text2emotion_files import load_text2emotion  # it imports torch

        judge = EmotionClassifier(
            classifier_name(args.text2emotion, args.vocabulary), *load_text2emotion(args.text2emotion, args.vocabulary)
        )
    clip = None
    if args.clip_score:
        from utils.evaluation.clip_score import load_clip_scorer  # it imports torch

        clip = load_clip_scorer(args.clip_score, args.image_root)
    with CaptionScorer(args.annFileExp, args.metrics) as scorer:
        evaluation = score_captions(scorer, records, full, explanations)
        facts = {"predictions": args.predictions.name, "predictions_sha256": sha256(args.predictions)}
        print(
            report_texts(
                out,
                args.records,
                args.test_set,
                evaluation,
                records,
                scorer,
                train,
                facts,
                lexicon,
                judge,
                clip,
                args.append_to,
            )
        )
    if not full:
        print("the captions name no emotion (explanations alone), so there is no ACC")
        if args.captions is None and (found := doubtful(explanations)):
            print(
                f"{len(found)} of them may name one in words that are not understood, {example(found)}: scored as they are"
            )
    elif other := {image: text for image, text in full.items() if not is_full(text)}:
        print(
            f"{len(other)} of {len(full)} captions do not begin with one of the nine emotions and because, {example(other)}: "
            "scored as they are, and their emotion counts as wrong"
        )
    print(f"report: {out}")


if __name__ == "__main__":
    sys.exit(run_script(main))
