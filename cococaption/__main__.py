"""Score a file of captions: python -m cococaption --annotations A.json --results R.json [--json OUT.json]"""

import argparse
import math
import sys
from pathlib import Path

from cococaption.references import read_results
from cococaption.scorer import CaptionScorer
from utils.constants import DEFAULT_METRICS, METEOR_GIB, METRICS
from utils.errors import OneLineParser, number, run_script
from utils.files import check_place, write_json


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m cococaption",
        description="Score captions against references: BLEU-1..4, METEOR, ROUGE-L, CIDEr and, on request, SPICE.",
    )
    parser.add_argument("--annotations", type=Path, required=True, help="references in COCO's caption format")
    parser.add_argument(
        "--results", type=Path, required=True, help='captions: a JSON list of {"image_id": integer, "caption": text}'
    )
    parser.add_argument(
        "--metrics", nargs="+", choices=METRICS, default=DEFAULT_METRICS, help="what to compute (default: %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help='write {"eval": {...}, "imgToEval": {id: {...}}} to this file'
    )
    parser.add_argument(
        "--cache_dir",
        type=Path,
        help="folder in which tokenised references are cached for later runs (default: no cache)",
    )
    parser.add_argument(
        "--meteor_jvms",
        type=number(int, 1, 32),
        default=1,
        help=f"Java processes for METEOR, {METEOR_GIB} GiB each (default: %(default)s)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Read the files, score the captions, print the scores.

    Raises:
        InputError: a flag or a file is wrong.
    """
    args = get_parser().parse_args(argv)
    if args.json:
        check_place(args.json)
    captions = read_results(args.results)
    with CaptionScorer(args.annotations, args.metrics, args.cache_dir, args.meteor_jvms) as scorer:
        corpus, images = scorer.score(captions)
    for name, value in corpus.items():
        print(f"{name:8} {value:.4f}")
    print(f"{len(images)} of {len(scorer.references)} annotated images scored")
    if args.json:
        per_image = {str(image_id): {"image_id": image_id, **_finite(row)} for image_id, row in images.items()}
        write_json(args.json, {"eval": _finite(corpus), "imgToEval": per_image})


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    """Replace NaN by None: SPICE gives NaN for a text it cannot parse, and JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


if __name__ == "__main__":
    sys.exit(run_script(main))
