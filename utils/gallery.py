"""What a trained model says of held-out images beside what people said: one HTML page.

python -m utils.gallery runs/demo
python -m utils.gallery results/ --records artEmisX_val.json --annFileExp artEmisX_val_annot_exp.json --image_root images/
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from utils.constants import DEFAULT_METRICS, EMOTIONS, IMAGE_FOLDERS, LEXICON_FILES, METRICS
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place, read_json

CAPTIONS = re.compile(r"unf_captions_full_(.+)_(\d+)_step\.json")
# Flags of the training that name the paths needed here, by our own flags.
PATHS = {
    "records": "nle_data_val_path",
    "annFileExp": "annFileExp",
    "image_root": "image_root",
    "vad_lexicon": "vad_lexicon",
}


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.gallery",
        description="Make a page of held-out images with what the model says of them: the worst, the best and some at random.",
        epilog="Paths that are not given are those of the run, as its log.jsonl has them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "run",
        nargs="?",
        type=Path,
        metavar="RUN",
        help="folder of a run (with results/ in it), or its folder of results",
    )
    add("--results", type=Path, help="folder of captions and log.jsonl, in place of RUN")
    add(
        "--evaluation",
        metavar="EPOCH_STEP",
        help="as in the captions' file names, e.g. 4_152; the last one unless given",
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
    results = results_folder(args)
    epoch, step = find_evaluation(results, args.evaluation)
    out = args.out or results / f"gallery_{epoch}_{step}.html"
    check_place(out)
    fill_in_paths(args, results)

    # after the checks, as they bring numpy, simplemma and Java along
    from cococaption.scorer import CaptionScorer
    from cococaption.tokenizer import printable
    from utils.data.records import read_records
    from utils.data.vad_lexicon import read_lexicon
    from utils.evaluation.emotion_metrics import emotion_accuracy
    from utils.visualize.gallery_page import WAYS, gallery_page, write_page

    records = read_records(args.records)
    full, explanations = (
        read_captions(results / f"unf_captions_{kind}_{epoch}_{step}_step.json") for kind in ("full", "exp")
    )
    check_same(full, explanations, results)
    check_split(full, records, args.records)
    shares_of = {way: read_shares(results / f"emotion_{way}_{epoch}_{step}_step.json") for way in WAYS}
    lexicon = None if args.vad_lexicon is None else read_lexicon(args.vad_lexicon)
    with CaptionScorer(args.annFileExp, args.metrics) as scorer:
        scores, of_images = scorer.score({image: printable(text) for image, text in explanations.items()})
    scores["sub_acc"] = emotion_accuracy(full, records)[0]
    page = gallery_page(
        title_of(results, epoch, step),
        records,
        full,
        explanations,
        of_images,
        scores,
        args.number,
        args.seed,
        args.image_root,
        lexicon,
        shares_of,
        args.records.name,
    )
    size = write_page(out, page)
    print(f"{out}: {len(page.cards)} images, {size / 1e6:.1f} MB; open it in a browser")


def title_of(results: Path, epoch: str, step: int) -> str:
    """The page's title: the run's name and its evaluation."""
    folder = results.resolve()
    run = folder.parent.name if folder.name == "results" else folder.name
    return f"{run}, epoch {epoch}, step {step}" if epoch.isdigit() else f"{run}, {epoch}"


def results_folder(args: argparse.Namespace) -> Path:
    """The folder of captions that the command line names."""
    if (args.run is None) == (args.results is None):
        raise InputError("name one folder: a run (RUN), e.g. runs/demo, or its results (--results)")
    named = args.run or args.results
    if not named.is_dir():
        raise InputError(f"{named}: no such folder; name that of a run, e.g. runs/demo")
    for folder in (named, named / "results"):
        if any(CAPTIONS.fullmatch(path.name) for path in folder.glob("unf_captions_full_*")):
            return folder
    raise InputError(
        f"{named}: holds no captions (unf_captions_full_...json), as no evaluation was made yet; wait for the first one, or "
        "name another run"
    )


def find_evaluation(results: Path, wanted: str | None) -> tuple[str, int]:
    """Epoch (or checkpoint's name) and step of the wanted evaluation, or of the last."""
    found = {}
    for path in results.glob("unf_captions_full_*"):
        if match := CAPTIONS.fullmatch(path.name):
            found[f"{match[1]}_{match[2]}"] = (match[1], int(match[2]), path)

    def age(name: str) -> tuple:
        epoch, step, path = found[name]
        return (1, int(epoch), step) if epoch.isdecimal() else (0, path.stat().st_mtime, 0)

    if wanted is None:
        wanted = max(found, key=age)
    if wanted not in found:
        raise InputError(
            f"--evaluation {wanted}: {results} holds none of that name; there are {', '.join(sorted(found, key=age)[-20:])}"
        )
    return found[wanted][:2]


def fill_in_paths(args: argparse.Namespace, results: Path) -> None:
    """Give the paths that no flag names from the run's log, and from their usual places beside the records.

    Raises:
        InputError: records or references are not there.
    """
    flags = recorded_flags(results)
    for ours, theirs in PATHS.items():
        if getattr(args, ours) is None and isinstance(flags.get(theirs), str):
            path = beside_results(flags[theirs], str(flags.get("caption_save_path", "results")), results)
            setattr(args, ours, path if path.exists() or ours in ("records", "annFileExp") else None)
    for name in ("records", "annFileExp"):
        path = getattr(args, name)
        if path is None:
            raise InputError(f"{results}: has no log.jsonl that tells the scored split; name it with --{name}")
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the scored split's with --{name}")
    folders = (args.records.parent, args.records.parent.parent)
    args.image_root = args.image_root or _first(folder / name for folder in folders for name in IMAGE_FOLDERS)
    args.vad_lexicon = args.vad_lexicon or _first(folder / name for folder in folders for name in LEXICON_FILES)
    for name, loss in (("image_root", "the page shows no images"), ("vad_lexicon", "words are not tinted")):
        if getattr(args, name) is None:
            print(f"no --{name} was given or found: {loss}")


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def recorded_flags(results: Path) -> dict:
    """The flags of the run, from its log here or one folder up; empty where there is none."""
    from utils.training.run_log import LOG_FILE, read_log

    path = _first(folder / LOG_FILE for folder in (results, results.absolute().parent))
    return {} if path is None else read_log(path).flags


def beside_results(path: str, recorded_results: str, results: Path) -> Path:
    """A recorded path as seen from here: a run may have been moved, or is looked at from another working directory."""
    moved = Path(os.path.normpath(results.absolute() / os.path.relpath(path, recorded_results)))
    return moved if moved.exists() else Path(path)


def read_captions(path: Path) -> dict[int, str]:
    """image id -> text of a file that an evaluation wrote."""
    from cococaption.references import read_results

    if not path.is_file():
        raise InputError(
            f"{path}: no such file; an evaluation writes it beside the others, so take another --evaluation"
        )
    return read_results(path)


def read_shares(path: Path) -> dict[int, list[float]]:
    """image id -> the model's nine probabilities; empty where the evaluation wrote none."""
    if not path.is_file():
        return {}
    found = {}
    listed = read_json(path)
    for entry in listed if isinstance(listed, list) else [None]:
        shares = entry.get("probabilities") if isinstance(entry, dict) else None
        fits = isinstance(shares, list) and len(shares) == len(EMOTIONS)
        if not fits or not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
            raise InputError(
                f"{path}: not a list of images with {len(EMOTIONS)} probabilities each; remove the file, or evaluate anew"
            )
        found[entry.get("image_id")] = shares
    return found


def check_same(full: dict[int, str], explanations: dict[int, str], results: Path) -> None:
    if full.keys() != explanations.keys():
        raise InputError(
            f"{results}: unf_captions_full and unf_captions_exp are of other images; take another --evaluation"
        )


def check_split(full: dict[int, str], records: dict[str, dict], path: Path) -> None:
    """InputError when the captions are of another split than the records."""
    unknown = [image for image in full if str(image) not in records]
    if unknown:
        raise InputError(
            f"{path}: lacks {len(unknown)} of the {len(full)} captioned images, {unknown[0]} for one: the captions are of "
            "another split; name theirs with --records, and its references with --annFileExp"
        )


if __name__ == "__main__":
    sys.exit(run_script(main))
