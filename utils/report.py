"""The test report: one run's scores beside the published ones, and several runs' mean and standard deviation.

python -m utils.report runs/*/report.json
"""

import argparse
import csv
import fcntl
import io
import json
import os
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from utils.constants import EMOTIONS
from utils.data.records import Records
from utils.errors import InputError, OneLineParser, run_script
from utils.files import atomic_path, check_place, read_bytes, read_json, write_json, write_text

# score in a report -> heading; fractions 0 .. 1, shown in percent (CIDEr as well, as its papers do)
CAPTION_SCORES = {
    "sub_acc": "ACC",
    "Bleu_1": "B-1",
    "Bleu_2": "B-2",
    "Bleu_3": "B-3",
    "Bleu_4": "B-4",
    "METEOR": "METEOR",
    "ROUGE_L": "ROUGE-L",
    "CIDEr": "CIDEr",
    "SPICE": "SPICE",
}
MORE_SCORES = {
    "EA_more_than_half": "EA > 1/2",
    "EA_at_least_half": "EA >= 1/2",
    "Unique": "Unique",
    "metaphors": "metaphors",
    "max_lcs": "max-LCS",
    "head_acc": "head ACC",
    "head_ece": "head ECE",
}
HEADINGS = CAPTION_SCORES | MORE_SCORES
PLAIN_SCORES = {"max_lcs", "mean_length", "distinct_words"}  # in words, not in percent

# Published scores in percent, by test set: ACC, BLEU-1 .. 4, METEOR, ROUGE-L. The papers' v2.0 is the combined set.
PUBLISHED_SCORES = tuple(CAPTION_SCORES)[:7]
PUBLISHED = {
    "v1.0": {
        "NLX-GPT (published)": (63.6, 53.8, 29.9, 16.3, 9.3, 13.8, 30.3),
        "SEVLM (published)": (65.6, 54.2, 30.3, 16.4, 9.2, 13.9, 30.4),
        "SAEA, 2026 (published)": (70.5, 56.3, 32.2, 17.8, 10.3, 14.8, 31.2),
    },
    "test_all": {
        "SEVLM (published)": (44.2, 51.8, 30.4, 17.2, 10.1, 13.9, 30.4),
        "SAEA, 2026 (published)": (56.2, 54.7, 33.4, 19.9, 12.2, 15.2, 32.0),
    },
}
TEST_SETS = ("v1.0", "test_all", "test_new", "test_ref", "test_old", "test_40")  # all but the first are of v2.0
V1_TEST_IMAGES = 7933

MAX_SCORE = 1e9  # NaN, infinity and numbers beyond it are no scores

# facts whose equality makes two runs comparable
SAME = ("data_set", "test_set", "images", "references_per_image", "lexicon_sha256", "judge")


def data_set_of(test_set: str | None) -> str | None:
    """The data set, v1.0 or v2.0, that a test set of `TEST_SETS` belongs to."""
    if test_set is None:
        return None
    return "v1.0" if test_set == "v1.0" else "v2.0"


def write_report(folder: Path, report: dict, append_to: Path | None = None) -> str:
    """Write `report.json` and `report.md` into `folder`, and one more row to the CSV file `append_to`.

    Args:
        report: {"scores": {name: fraction 0 .. 1, or words for the lengths}, and facts beside it, of which these are
            known: "test_set" (one of `TEST_SETS` or None), "data_set" (derived from it when absent), "images",
            "references_per_image", "checkpoint", "lexicon", "lexicon_sha256", "judge", "seed", "warnings" (list of
            texts), "confusion_matrix" ([9][10] counts). Others are written along.
        append_to: columns that the file lacks are added to it; runs that end together do not lose each other's row.

    Returns:
        the table to print: warnings, this run beside the published scores of the same test set, and the facts.

    Raises:
        InputError: `append_to` is there and no CSV file of ours.
    """
    test_set = report.get("test_set")
    report = {"data_set": data_set_of(test_set), "test_set": test_set} | report
    text = format_report(report)
    matrix = _confusion_table(report["confusion_matrix"]) if report.get("confusion_matrix") else ""
    write_json(folder / "report.json", report, indent=1)
    write_text(folder / "report.md", f"# Test report\n\n{text}\n{matrix}")
    if append_to is not None:
        _append_row(append_to, _flat(report))
    return text


def check_append_to(path: Path) -> None:
    """Refuse, before a long run, a file that its row could not be appended to (InputError)."""
    if os.path.lexists(path):
        _read_rows(path)


def format_report(report: dict) -> str:
    """Warnings, the table and the facts of one report as Markdown."""
    test_set, warnings = report.get("test_set"), report.get("warnings") or []
    scores = report["scores"]
    rows = {"this run": {name: _shown(name, value) for name, value in scores.items()}}
    for name, values in PUBLISHED.get(test_set, {}).items():
        rows[name] = dict(zip(PUBLISHED_SCORES, (f"{value:.1f}" for value in values), strict=True))
    lines = [f"**WARNING: {_escaped(warning)}**\n" for warning in warnings]
    lines.append(_table(rows))
    if test_set not in PUBLISHED:
        lines.append(
            f"No scores are published for {'an unnamed test set' if test_set is None else _escaped(str(test_set))}.\n"
        )
    others = {name: _shown(name, value) for name, value in scores.items() if name not in HEADINGS}
    facts = {name: value for name, value in report.items() if name not in ("scores", "warnings", "confusion_matrix")}
    lines += [f"- {name.replace('_', ' ')}: {_fact(value)}" for name, value in (others | facts).items()]
    return "\n".join(lines)


def _shown(name: str, value: float) -> str:
    if name == "distinct_words" or name.endswith("_images"):
        return f"{value:.0f}"
    return f"{value:.2f}" if name in PLAIN_SCORES else f"{100 * value:.1f}"


def _fact(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "-" if value is None else _escaped(str(value))


def _escaped(text: str) -> str:
    """A text out of a file, in one line and without effect on Markdown, HTML or the terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"[\\`|*<>\[\]]", r"\\\g<0>", line)


def _table(rows: dict[str, dict[str, str]]) -> str:
    """A Markdown table of the known scores that any row has, aligned so that it reads as plain text too."""
    columns = [name for name in HEADINGS if any(name in row for row in rows.values())]
    cells = [["", *(HEADINGS[name] for name in columns)]]
    cells += [[title, *(row.get(name, "-") for name in columns)] for title, row in rows.items()]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = [
        " | ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _confusion_table(counts: list[list[int]]) -> str:
    lines = ["", "Dominant emotion (rows) against the emotion that the caption names:", ""]
    lines += [f"| | {' | '.join([*EMOTIONS, 'other text'])} |", f"|---|{'---:|' * (len(EMOTIONS) + 1)}"]
    lines += [f"| {emotion} | {' | '.join(map(str, row))} |" for emotion, row in zip(EMOTIONS, counts, strict=True)]
    return "\n".join(lines) + "\n"


def _flat(report: dict) -> dict[str, Any]:
    """What fits into a CSV row: facts, then scores; warnings joined, matrices left out."""
    facts = {name: value for name, value in report.items() if isinstance(value, str | int | float | None)}
    return facts | {"warnings": "; ".join(report.get("warnings") or [])} | report["scores"]


def _append_row(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # the file itself is replaced, so the lock is on its folder
        columns, rows = _read_rows(path) if path.exists() else ([], [])
        columns += [name for name in row if name not in columns]
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            for cells in (dict(zip(columns, columns, strict=True)), *rows, row):
                writer.writerow({name: _without_formula(cell) for name, cell in cells.items()})
    finally:
        os.close(folder)


def _without_formula(cell: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front, which makes it a text there too."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number below zero


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error}); name another with --append_to") from None
    columns = list(reader.fieldnames or [])
    if (columns or rows) and ("test_set" not in columns or any(None in row or None in row.values() for row in rows)):
        raise InputError(f"{path}: not a CSV file of test reports; name another with --append_to")
    return columns, rows


def split_warnings(
    evaluated_path: str | Path, records: Records, train_records: Records | None, test_set: str | None
) -> list[str]:
    """What speaks against the evaluated file being the test split that it is said to be.

    Args:
        evaluated_path: the JSON split that was scored.
        records: its records.
        train_records: the training images, or None when there is no such file, which is said too.
        test_set: what the run claims to score, one of `TEST_SETS`, or None when it claims nothing (validation).

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
    if train_records is None:
        if test_set is not None:
            found.append("no training file was found, so images shared with training were not looked for")
    else:
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
    """By image id, and by name, since ids of other preprocessing differ for the same image."""
    names = {record.get("image_name") for record in others.values() if isinstance(record, dict)}
    shared = [
        record["image_name"] for image, record in records.items() if image in others or record["image_name"] in names
    ]
    if not shared:
        return []
    return [f"{len(shared)} of the {len(records)} images of {path.name} are in {where} as well, e.g. {shared[0]}"]


def aggregate(reports: dict[str, dict]) -> list[dict]:
    """Mean and standard deviation of comparable runs.

    Args:
        reports: file -> report, as `write_report` wrote it.

    Returns:
        one dictionary for each group of runs that agree in all of `SAME`, in the order of the files: these facts,
        "runs", "seeds", "files", "mean" and "std" (of the sample, n - 1; absent for a single run), by score. A score
        that a run of the group lacks is left out.
    """
    groups: dict[tuple, list[str]] = {}
    for file, report in reports.items():
        groups.setdefault(tuple(json.dumps(report.get(fact)) for fact in SAME), []).append(file)
    summaries = []
    for files in groups.values():
        runs = [reports[file] for file in files]
        scores = [name for name in runs[0]["scores"] if all(name in run["scores"] for run in runs)]
        values = {name: [run["scores"][name] for run in runs] for name in scores}
        summary = {fact: runs[0].get(fact) for fact in SAME}
        summary |= {"runs": len(runs), "seeds": [run.get("seed") for run in runs], "files": files}
        summary["mean"] = {name: statistics.fmean(values[name]) for name in scores}
        if len(runs) > 1:
            summary["std"] = {name: statistics.stdev(values[name]) for name in scores}
        summaries.append(summary)
    return summaries


def format_summary(summary: dict) -> str:
    """One group of runs beside the published scores of its test set, as Markdown."""
    test_set, std = summary["test_set"], summary.get("std", {})
    title = f"mean of {summary['runs']} runs" if summary["runs"] > 1 else "one run"
    rows = {title: {name: _shown(name, value) for name, value in summary["mean"].items()}}
    if std:
        rows["standard deviation"] = {
            name: f"{value:.2f}" if name in PLAIN_SCORES else f"{100 * value:.2f}" for name, value in std.items()
        }
    for name, values in PUBLISHED.get(test_set, {}).items():
        rows[name] = dict(zip(PUBLISHED_SCORES, (f"{value:.1f}" for value in values), strict=True))
    lines = [_table(rows)]
    lines += [f"- {fact.replace('_', ' ')}: {_fact(summary[fact])}" for fact in SAME]
    lines.append(f"- seeds: {', '.join(map(_fact, summary['seeds']))}")
    if len(set(summary["seeds"])) < summary["runs"]:
        lines.append("- **WARNING: the same seed more than once: the deviation says less than it seems to**")
    return "\n".join(lines)


def read_report(path: str | Path) -> dict:
    """Read a report.json; InputError when it is none."""
    report = read_json(path)
    scores = report.get("scores") if isinstance(report, dict) else None
    if not isinstance(scores, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_SCORE
        for value in scores.values()
    ):
        raise InputError(f"{path}: no test report (it has no scores); name the report.json files of --eval_only runs")
    for fact in ("test_set", "seed"):
        if not isinstance(report.get(fact), str | int | None):
            raise InputError(
                f"{path}: no test report ({fact} is no name or number); name the report.json files of runs"
            )
    return report


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
