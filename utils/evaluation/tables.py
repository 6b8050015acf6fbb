"""Test reports as files and tables: one run's scores beside the published ones, several runs' mean and deviation."""

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.constants import EMOTIONS
from utils.errors import InputError
from utils.evaluation.image_scores import GROUPS
from utils.files import append_row, read_json, write_json, write_text

# ---- scores and their headings ---------------------------------------------------------------------------------------

# score in a report -> heading, in the order of a table's columns; a score in neither table is listed below it
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
    "macro_F1": "macro F1",
    "weighted_F1": "weighted F1",
    "EA_more_than_half": "EA > 1/2",
    "EA_at_least_half": "EA >= 1/2",
    "Unique": "Unique",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "self_BLEU_4": "self-BLEU",
    "coverage": "coverage",
    "metaphors": "metaphors",
    "max_lcs": "max-LCS",
    "text_acc": "text ACC",
    "head_acc": "head ACC",
    "head_ece": "head ECE",
    "head_KL": "head KL",
    "head_JS": "head JS",
    "head_brier": "head Brier",
    "likelihood_acc": "likel. ACC",
    "likelihood_ece": "likel. ECE",
    "likelihood_KL": "likel. KL",
    "likelihood_JS": "likel. JS",
    "likelihood_brier": "likel. Brier",
    "vad_distance": "VAD distance",
    "CLIPScore": "CLIPScore",
    "RefCLIPScore": "RefCLIPScore",
    "self_consistency": "consistency",
}
WIDTH = 120  # of a printed table, in characters
HEADINGS = CAPTION_SCORES | MORE_SCORES
# not fractions 0 .. 1, which are shown in percent (CIDEr as well, as in its papers)
PLAIN_SCORES = {"max_lcs", "mean_length", "distinct_words", "vad_distance"}
PLAIN_SCORES |= {f"{source}_{name}" for source in ("head", "likelihood") for name in ("KL", "JS", "brier")}

BASELINES = {"floor": "constant answer", "ceiling": "one annotator"}
# not among the facts below the table
HIDDEN = ("scores", "warnings", "confusion_matrix", "emotions", "intervals", *BASELINES, *GROUPS)

# ---- scores of the papers, in percent, as they were published --------------------------------------------------------

# score in a report, in the order of the rows: ACC, BLEU-1 .. 4, METEOR, ROUGE-L
PUBLISHED_SCORES = ("sub_acc", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L")

# test set -> row -> scores. The papers' v2.0 is test_all.
PUBLISHED = {
    "v1.0": {
        "NLX-GPT (published)": (63.6, 53.8, 29.9, 16.3, 9.3, 13.8, 30.3),
        "SEVLM (published)": (65.6, 54.2, 30.3, 16.4, 9.2, 13.9, 30.4),
        "LLaVA-OV (published)": (69.8, 49.9, 27.2, 15.0, 8.4, 14.3, 28.8),
        "SAEA, 2026 (published)": (70.5, 56.3, 32.2, 17.8, 10.3, 14.8, 31.2),
    },
    "test_all": {
        "SEVLM (published)": (44.2, 51.8, 30.4, 17.2, 10.1, 13.9, 30.4),
        "LLaVA-OV (published)": (53.7, 50.7, 29.8, 17.6, 10.7, 14.9, 29.9),
        "SAEA, 2026 (published)": (56.2, 54.7, 33.4, 19.9, 12.2, 15.2, 32.0),
    },
    "affection": {
        "SEVLM (published)": (69.4, 62.0, 36.3, 21.0, 12.3, 15.5, 30.9),
        "LLaVA-OV (published)": (76.6, 61.2, 36.0, 21.4, 12.9, 16.5, 30.8),
        "SAEA, 2026 (published)": (78.2, 64.5, 38.9, 23.1, 13.7, 16.6, 32.3),
    },
}
UNITS = (
    "In percent, except max-LCS (words) and KL, JS, Brier and VAD distance (as they are); report.json holds fractions."
)
FOOTNOTE = (
    "SAEA's accuracy is that of an image head, not of the generated text, and its published script chooses the epoch on "
    "the test file."
)

# ---- which reports can be compared -----------------------------------------------------------------------------------

# facts whose equality makes two runs comparable
SAME = (
    "data_set",
    "test_set",
    "images",
    "references_per_image",
    "evaluated_sha256",
    "references_sha256",
    "lexicon_sha256",
    "emotion_classifier",
    "clip_score",
    "emotion_from",
)
# facts in which runs that are averaged may differ, with a warning
WARN = ("image_encoder_sha256", "decoder_sha256", "lemmatizer", "decoding")
# a fact -> the scores that mean the same only where the runs agree in it
RESTING_ON = {
    "emotion_classifier": ("EA_more_than_half", "EA_at_least_half", "self_consistency"),
    "clip_score": ("CLIPScore", "RefCLIPScore"),
    "lexicon_sha256": ("vad_distance",),
    "training_texts_sha256": ("max_lcs",),
}


def differing(reports: Iterable[dict], facts: Iterable[str]) -> list[str]:
    """Those of the facts in which the reports (or run records) that have them differ."""
    values = {fact: {json.dumps(report.get(fact)) for report in reports} for fact in facts}
    return [fact for fact, distinct in values.items() if len(distinct - {"null"}) > 1]


def not_comparable(reports: Sequence[dict]) -> dict[str, str]:
    """Score -> the fact in which the reports differ, of scores that mean something else with another."""
    return {score: fact for fact in differing(reports, RESTING_ON) for score in RESTING_ON[fact]}


def left_out_line(scores: dict[str, str]) -> str:
    """A line about scores that are left out. scores: as from `not_comparable`."""
    return f"left out: {', '.join(map(HEADINGS.get, scores))}, as the runs differ in {in_words(scores.values())}"


def in_words(facts: Iterable[str]) -> str:
    """The facts' names, readable."""
    return ", ".join(dict.fromkeys(fact.removesuffix("_sha256").replace("_", " ") for fact in facts))


# ---- one report ------------------------------------------------------------------------------------------------------


def data_set_of(test_set: str | None) -> str | None:
    """The data set that a test set of `TEST_SETS` belongs to: v1.0, v2.0 or affection."""
    if test_set is None:
        return None
    return test_set if test_set in ("v1.0", "affection") else "v2.0"


def write_report(folder: Path, report: dict, append_to: Path | None = None, name: str = "report.json") -> str:
    """Write `name` and the same as `.md` into `folder`, and one more row to the CSV file `append_to`.

    Args:
        report: "scores" (name -> fraction 0 .. 1, but for `PLAIN_SCORES`), "test_set" (one of `TEST_SETS` or None), and
            optionally "intervals", "warnings" (list of texts), "confusion_matrix" ([9][10] counts), "emotions" (as
            `emotion_table`), `BASELINES` and `GROUPS`. Everything else is a fact, listed below the table.
        append_to: columns that the file lacks are added to it; runs that end together do not lose each other's row.

    Returns:
        the table to print: warnings, this run beside the published scores of the same test set, and the facts.

    Raises:
        InputError: `append_to` exists and is not such a CSV file.
    """
    test_set = report.get("test_set")
    report = {"data_set": data_set_of(test_set), "test_set": test_set} | report
    text = format_report(report)
    matrix = _confusion_table(report["confusion_matrix"]) if report.get("confusion_matrix") else ""
    write_json(folder / name, report, indent=1)
    emotions = _emotion_table(report["emotions"]) if report.get("emotions") else ""
    write_text(
        (folder / name).with_suffix(".md"), f"# Test report\n\n{text}\n{matrix}{emotions}{_group_tables(report)}"
    )
    if append_to is not None:
        append_row(append_to, _flat(report))
    return text


def format_report(report: dict) -> str:
    """Warnings, the table and the facts of one report as Markdown."""
    test_set, warnings = report.get("test_set"), report.get("warnings") or []
    scores = report["scores"]
    rows = {"this run": {name: format_score(name, value) for name, value in scores.items()}}
    bounds = report.get("intervals") or {}
    for place, title in enumerate(("95 % from", "95 % to")):
        if bounds:
            rows[title] = {name: format_score(name, interval[place]) for name, interval in bounds.items()}
    for name, title in BASELINES.items():
        if name in report:
            rows[title] = {score: format_score(score, value) for score, value in report[name]["scores"].items()}
    lines = [f"**WARNING: {_escaped(warning)}**\n" for warning in warnings]
    lines += [_table(rows | _published_rows(test_set)), f"{UNITS}\n"]
    if test_set in PUBLISHED:
        lines.append(f"{FOOTNOTE}\n")
    else:
        lines.append(f"No scores are published for {_escaped(test_set or 'an unnamed test set')}.\n")
    others = {name: format_score(name, value) for name, value in scores.items() if name not in HEADINGS}
    facts = {name: value for name, value in report.items() if name not in HIDDEN}
    lines += [f"- {name.replace('_', ' ')}: {_fact(value)}" for name, value in (others | facts).items()]
    return "\n".join(lines)


def _published_rows(test_set: str | None) -> dict[str, dict[str, str]]:
    return {
        name: dict(zip(PUBLISHED_SCORES, (f"{value:.1f}" for value in values), strict=True))
        for name, values in PUBLISHED.get(test_set, {}).items()
    }


def format_score(name: str, value: float) -> str:
    """A score for people: in percent, but for `PLAIN_SCORES` and counts. value: a fraction, or one of these."""
    if name == "distinct_words" or name.endswith("_images"):
        return f"{value:.0f}"
    return f"{value:.2f}" if name in PLAIN_SCORES else f"{100 * value:.1f}"


def caption_scores(scores: dict[str, float]) -> dict[str, str]:
    """Heading -> percent, of those caption scores that there are. scores: name -> fraction 0 .. 1 (CIDEr may be more)."""
    return {heading: format_score(name, scores[name]) for name, heading in CAPTION_SCORES.items() if name in scores}


def _fact(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "-" if value is None else _escaped(str(value))


def _escaped(text: str) -> str:
    """A text in one line, without effect on Markdown or the terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"[\\`|*<>\[\]]", r"\\\g<0>", line)


def _table(rows: dict[str, dict[str, str]]) -> str:
    """A Markdown table of the known scores that any row has, aligned so that it reads as plain text too."""
    columns = [name for name in HEADINGS if any(name in row for row in rows.values())]
    cells = [["", *(HEADINGS[name] for name in columns)]]
    cells += [[title, *(row.get(name, "-") for name in columns)] for title, row in rows.items()]
    return aligned_table(cells)


def aligned_table(cells: list[list[str]]) -> str:
    """Rows of cells, the heading first, as a Markdown table that reads as plain text too; numbers to the right.

    A table of more than WIDTH characters is continued in further ones, each with the first column and without the rows
    that have no value there.
    """
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    parts: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        if parts[-1] and sum(widths[place] + 3 for place in (0, *parts[-1], column)) + 1 > WIDTH:
            parts.append([])
        parts[-1].append(column)
    return "\n".join(_aligned(cells, widths, part, first=part is parts[0]) for part in parts)


def _aligned(cells: list[list[str]], widths: list[int], columns: list[int], first: bool) -> str:
    heading, *rows = cells
    rows = [row for row in rows if first or any(row[column] != "-" for column in columns)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *(row[column].rjust(widths[column]) for column in columns)]
        for row in (heading, rule, *rows)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _confusion_table(counts: list[list[int]]) -> str:
    lines = ["", "Dominant emotion (rows) against the emotion that the caption names:", ""]
    lines += [f"| | {' | '.join([*EMOTIONS, 'other text'])} |", f"|---|{'---:|' * (len(EMOTIONS) + 1)}"]
    lines += [f"| {emotion} | {' | '.join(map(str, row))} |" for emotion, row in zip(EMOTIONS, counts, strict=True)]
    return "\n".join(lines) + "\n"


def _emotion_table(emotions: dict[str, dict]) -> str:
    cells = [["", "images", "precision", "recall", "F1", "95 % from", "95 % to"]]
    for emotion, row in emotions.items():
        values = [row["precision"], row["recall"], row["F1"], *row["interval"]]
        cells.append([emotion, str(row["images"]), *(f"{100 * value:.1f}" for value in values)])
    return f"\nThe emotions that captions name, in percent:\n\n{aligned_table(cells)}"


def _group_tables(report: dict) -> str:
    text = ""
    for key, title in GROUPS.items():
        groups = report.get(key) or {}
        if "images" in groups:
            groups = {"all of them": groups}
        if groups:
            rows = {
                f"{_escaped(name)} ({scores['images']})": {
                    score: format_score(score, scores[score]) for score in scores
                }
                for name, scores in groups.items()
            }
            text += f"\n{title} (number of images):\n\n{_table(rows)}"
    return text


def _flat(report: dict) -> dict[str, Any]:
    """A report as a CSV row: facts, then scores; warnings joined, matrices left out."""
    facts = {name: value for name, value in report.items() if isinstance(value, str | int | float | None)}
    return facts | {"warnings": "; ".join(report.get("warnings") or [])} | report["scores"]


def read_report(path: str | Path) -> dict:
    """Read a report.json; InputError when it is not one."""
    report = read_json(path)
    scores = report.get("scores") if isinstance(report, dict) else None
    if not isinstance(scores, dict) or not all(isinstance(value, int | float) for value in scores.values()):
        raise InputError(
            f"{path}: not a test report (it has no scores); name the report.json files of --eval_only runs"
        )
    return report


# ---- several reports -------------------------------------------------------------------------------------------------


def aggregate(reports: dict[str, dict]) -> list[dict]:
    """Mean and standard deviation of comparable runs.

    Args:
        reports: file -> report, as `write_report` wrote it.

    Returns:
        one dictionary for each group of runs that agree in all of `SAME`, in the order of the files: these facts,
        "runs", "seeds", "files", "mean" and "std" (of the sample, n - 1; absent for a single run), by score, and "notes".
        A score that a run of the group lacks is left out, and one that `not_comparable` names, with a note.
    """
    groups: dict[tuple, list[str]] = {}
    # captions of other programs name their emotions in the text
    reports = {file: {"emotion_from": "text"} | report for file, report in reports.items()}
    for file, report in reports.items():
        groups.setdefault(tuple(json.dumps(report.get(fact)) for fact in SAME), []).append(file)
    return [_summary({file: reports[file] for file in files}) for files in groups.values()]


def _summary(reports: dict[str, dict]) -> dict:
    runs = list(reports.values())
    shared = [name for name in runs[0]["scores"] if all(name in run["scores"] for run in runs)]
    left_out = {name: fact for name, fact in not_comparable(runs).items() if name in shared}
    values = {name: [run["scores"][name] for run in runs] for name in shared if name not in left_out}
    summary = {fact: runs[0].get(fact) for fact in SAME}
    summary |= {"runs": len(runs), "seeds": [run.get("seed") for run in runs], "files": list(reports)}
    summary["mean"] = {name: statistics.fmean(of_runs) for name, of_runs in values.items()}
    if len(runs) > 1:
        summary["std"] = {name: statistics.stdev(of_runs) for name, of_runs in values.items()}
    summary["notes"] = [left_out_line(left_out)] if left_out else []
    if different := differing(runs, WARN):
        summary["notes"].append(f"WARNING: a mean of runs that differ in {in_words(different)}")
    return summary


def format_summary(summary: dict) -> str:
    """One group of runs beside the published scores of its test set, as Markdown."""
    test_set, std = summary["test_set"], summary.get("std", {})
    title = f"mean of {summary['runs']} runs" if summary["runs"] > 1 else "one run"
    rows = {title: {name: format_score(name, value) for name, value in summary["mean"].items()}}
    if std:
        rows["standard deviation"] = {
            name: f"{value:.2f}" if name in PLAIN_SCORES else f"{100 * value:.2f}" for name, value in std.items()
        }
    lines = [_table(rows | _published_rows(test_set)), f"{UNITS}\n"]
    lines += [f"{FOOTNOTE}\n"] if test_set in PUBLISHED else []
    lines += [f"- {fact.replace('_', ' ')}: {_fact(summary[fact])}" for fact in SAME]
    seeds = [seed for seed in summary["seeds"] if seed is not None]  # captions of other programs have none
    lines += [f"- seeds: {', '.join(map(str, seeds))}"] if seeds else []
    if len(set(seeds)) < len(seeds):
        lines.append("- **WARNING: the same seed more than once: the deviation says less than it seems to**")
    lines += [f"- **{note}**" for note in summary["notes"]]
    return "\n".join(lines)
