"""The test report of several runs: mean and standard deviation beside the published scores.

python -m utils.report runs/*/report.json
"""

import argparse
import sys
from pathlib import Path

from utils.errors import OneLineParser, run_script
from utils.evaluation.report_tables import SAME, aggregate, format_summary, read_report
from utils.files import check_place, write_json


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.report", description="Mean and standard deviation of several runs' test reports."
    )
    parser.add_argument("reports", nargs="+", type=Path, help="report.json files, e.g. runs/*/report.json")
    parser.add_argument("--json", type=Path, help="write the summary to this file as well")
    return parser


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    if args.json:
        check_place(args.json)
    summaries = aggregate({str(path): read_report(path) for path in dict.fromkeys(args.reports)})
    print("\n\n".join(format_summary(summary) for summary in summaries))
    if len(summaries) > 1:
        print(f"\n{len(summaries)} groups: only runs that agree in {', '.join(SAME)} are averaged.")
    if args.json:
        write_json(args.json, summaries, indent=1)


if __name__ == "__main__":
    sys.exit(run_script(main))
