"""Whether two runs differ: paired bootstrap over images, and the images on which they differ most.

python -m utils.compare runs/a runs/b
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from utils.errors import InputError, OneLineParser, escaped, number, run_script
from utils.evaluation.image_scores import RESAMPLES, SEED, paired_difference, read_images
from utils.evaluation.tables import HEADINGS, PLAIN_SCORES, left_out_line, not_comparable, read_report
from utils.files import check_place, write_json
from utils.runs import report_file

RANKING = ("METEOR", "CIDEr", "ROUGE_L", "SPICE", "Bleu_1")  # the first that both runs have ranks the images


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.compare", description="Paired bootstrap of two runs that scored the same images."
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of a run with a test report, or a report.json")
    parser.add_argument("b", type=Path, metavar="B", help="another")
    parser.add_argument("--resamples", type=number(int, 100, 100_000), default=RESAMPLES, help="default: %(default)s")
    parser.add_argument("--seed", type=number(int, 0), default=SEED, help="default: %(default)s")
    parser.add_argument("--images", type=number(int, 0), default=5, help="how many to show (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the comparison to this file as well")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    if args.json:
        check_place(args.json)
    paths = [report_file(run) for run in (args.a, args.b)]
    reports = [read_report(path) for path in paths]
    (a, content_a), (b, content_b) = map(read_images, paths)
    if a.images != b.images:
        raise InputError(f"{args.b}: scored other images than {args.a}; score both runs on the same split")
    if content_a["references"] != content_b["references"]:
        raise InputError(
            f"{args.b}: scored against other references than {args.a}; score both runs with the same --annFileExp"
        )
    left_out = {name: fact for name, fact in not_comparable(reports).items() if name in a.values and name in b.values}
    a.values = {name: values for name, values in a.values.items() if name not in left_out}
    scores = paired_difference(a, b, args.resamples, args.seed)
    print(table(scores))
    print(f"{len(a.images)} images, {args.resamples} resamples, 95 % interval; A: {args.a}, B: {args.b}")
    if left_out:
        print(left_out_line(left_out))
    ranking = next((name for name in RANKING if name in scores), None)
    images = []
    if ranking and args.images:
        values_a, values_b = a.of_images()[ranking], b.of_images()[ranking]
        print(f"\nthe images that differ most in {HEADINGS[ranking]}:")
        for place in np.argsort(-np.abs(values_b - values_a), kind="stable")[: args.images].tolist():
            images.append({"image_id": a.images[place], "image_name": content_a["names"][place]})
            print(escaped(images[-1]["image_name"]))
            for run, values, content in (("a", values_a, content_a), ("b", values_b, content_b)):
                value, caption = float(values[place]), content["captions"][place]
                images[-1][run] = {"caption": caption, ranking: value}
                print(f"  {run.upper()} {100 * value:5.1f}  {escaped(caption)}")
    if args.json:
        write_json(args.json, {"scores": scores, "images_differing_most": images}, indent=1)


def table(scores: dict[str, dict]) -> str:
    """The scores of both runs as lines to print. scores: of `paired_difference`."""
    lines = [f"{'':18} {'A':>8} {'B':>8} {'B - A':>8} {'interval':>18} {'p':>7}"]
    for name, row in scores.items():
        scale = 1 if name in PLAIN_SCORES else 100
        low, high = (f"{scale * value:+.2f}" for value in row["interval"])
        lines.append(
            f"{HEADINGS.get(name, name):18} {scale * row['a']:8.2f} {scale * row['b']:8.2f} "
            f"{scale * row['difference']:+8.2f} {f'{low} .. {high}':>18} {row['p']:7.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_script(main))
