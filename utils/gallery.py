"""A page of held-out images with a trained model's texts beside the annotators': one HTML file.

python -m utils.gallery runs/demo
python -m utils.gallery results/ --records artEmisX_val.json --annFileExp artEmisX_val_annot_exp.json --image_root images/
"""

import argparse
import re
import sys
from pathlib import Path

from cococaption import CaptionScorer
from cococaption.references import read_results
from utils.constants import DEFAULT_METRICS, LEXICON_FILES, METRICS
from utils.data.records import read_records
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError, OneLineParser, number, run_script
from utils.evaluation.evaluation import evaluation_file, read_distributions, score_captions
from utils.files import check_place
from utils.runs import first_existing, images_beside, recorded_flags, recorded_path, results_folder
from utils.visualize.gallery_page import SOURCES, gallery_page, gallery_path, write_page

CAPTIONS = re.compile(r"unf_captions_full_(.+)_(\d+)_step\.json")
# flag -> the training's flag for the same path
TRAINING_FLAGS = {
    "records": "nle_data_val_path",
    "annFileExp": "annFileExp",
    "image_root": "image_root",
    "vad_lexicon": "vad_lexicon",
}


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.gallery",
        description="Write a page of held-out images with the model's texts about them: the worst, the best and some at random.",
        epilog="Paths that are not given are those of the run, from its log.jsonl.",
    )
    add = parser.add_argument
    add(
        "run",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="folder of a run, e.g. runs/demo, or of its results or checkpoints",
    )
    add("--results", type=Path, help="folder of captions and log.jsonl, in place of RUN")
    add(
        "--evaluation",
        metavar="EPOCH_STEP",
        help="as in the captions' file names, e.g. 4_152; if not given, the last one",
    )
    add("--records", type=Path, help="split that was captioned, e.g. artEmisX_val.json")
    add("--annFileExp", type=Path, help="its reference explanations in COCO's format")
    add("--image_root", type=Path, help="image folder")
    add("--vad_lexicon", type=Path, help="lexicon whose values tint the words")
    add("--number", type=number(int, 1, 100_000), default=60, help="of images")
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, help="of the images that are drawn at random")
    add("--metrics", nargs="+", choices=METRICS, default=list(DEFAULT_METRICS), help="scores of each image")
    add("--out", type=Path, help="file to write (default: gallery_EPOCH_STEP.html beside the captions)")
    return parser


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    if (args.run is None) == (args.results is None):
        raise InputError("name one folder: a run (RUN), e.g. runs/demo, or its results (--results)")
    results = results_folder(args.run or args.results)
    epoch, step = find_evaluation(results, args.evaluation)
    out = args.out or gallery_path(results, epoch, step)
    check_place(out)
    fill_in_paths(args, results)

    records = read_records(args.records)
    full, explanations = (
        read_results(evaluation_file(results, kind, epoch, step)) for kind in ("unf_captions_full", "unf_captions_exp")
    )
    unknown = [image for image in full if str(image) not in records]
    if unknown:
        raise InputError(
            f"{args.records}: lacks {len(unknown)} of the {len(full)} captioned images, {unknown[0]} for one: the captions "
            "are of another split; name theirs with --records, and its references with --annFileExp"
        )
    files = {source: evaluation_file(results, f"emotion_{source}", epoch, step) for source in SOURCES}
    distributions = {source: read_distributions(path) for source, path in files.items() if path.is_file()}
    lexicon = None if args.vad_lexicon is None else read_lexicon(args.vad_lexicon)
    with CaptionScorer(args.annFileExp, args.metrics) as scorer:
        evaluation = score_captions(scorer, records, full, explanations, distributions)
    page = gallery_page(
        page_title(results, epoch, step),
        args.records.name,
        records,
        evaluation,
        args.number,
        args.seed,
        args.image_root,
        lexicon,
    )
    size = write_page(out, page)
    print(f"{out}: {len(page.cards)} images, {size / 1e6:.1f} MB; open it in a browser")


def page_title(results: Path, epoch: str, step: int) -> str:
    """The run's name and its evaluation."""
    folder = results.resolve()
    run = folder.parent.name if folder.name == "results" else folder.name
    return f"{run}, epoch {epoch}, step {step}" if epoch.isdigit() else f"{run}, {epoch}"


def find_evaluation(results: Path, wanted: str | None) -> tuple[str, int]:
    """Epoch (or checkpoint's name) and step of the wanted evaluation, or of the last."""
    found = {}
    for path in results.glob("unf_captions_full_*"):
        if match := CAPTIONS.fullmatch(path.name):
            found[f"{match[1]}_{match[2]}"] = (match[1], int(match[2]), path)

    def age(name: str) -> tuple:
        epoch, step, path = found[name]
        return (1, int(epoch), step) if epoch.isdecimal() else (0, path.stat().st_mtime, 0)

    if not found:
        raise InputError(f"{results}: holds no captions (unf_captions_full_...json): wait for the first evaluation")
    if wanted is None:
        wanted = max(found, key=age)
    if wanted not in found:
        raise InputError(
            f"--evaluation {wanted}: not in {results}; give one of {', '.join(sorted(found, key=age)[-20:])}"
        )
    return found[wanted][:2]


def fill_in_paths(args: argparse.Namespace, results: Path) -> None:
    """Give the paths that no flag names from the run's log, and from their usual places beside the records.

    Raises:
        InputError: records or references are not there.
    """
    flags = recorded_flags(results)
    for flag, training_flag in TRAINING_FLAGS.items():
        path = recorded_path(flags, training_flag, results)
        if getattr(args, flag) is None and path is not None and (path.exists() or flag in ("records", "annFileExp")):
            setattr(args, flag, path)
    for flag in ("records", "annFileExp"):
        path = getattr(args, flag)
        if path is None:
            raise InputError(f"{results}: no log.jsonl names the scored split; name it with --{flag}")
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the scored split's with --{flag}")
    folders = (args.records.parent, args.records.parent.parent)
    args.image_root = args.image_root or images_beside(args.records)
    args.vad_lexicon = args.vad_lexicon or first_existing(folder / name for folder in folders for name in LEXICON_FILES)
    for flag, consequence in (("image_root", "the page shows no images"), ("vad_lexicon", "words are not tinted")):
        if getattr(args, flag) is None:
            print(f"no --{flag} was given or found: {consequence}")


if __name__ == "__main__":
    sys.exit(run_script(main))
