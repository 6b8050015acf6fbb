"""The ablation table: a row for each combination of flags, mean and standard deviation over the seeds; md, csv and tex.

Under it stand notes: what the scores are of, and in what the runs differ beyond the ablated flags.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.evaluation.tables import (
    HEADINGS,
    PLAIN_SCORES,
    aligned_table,
    differing,
    in_words,
    left_out_line,
    not_comparable,
)
from utils.files import write_rows, write_text
from utils.opts import declared

Values = dict[str, bool | str]  # flag -> its value in one combination

YES, NO = "✓", "-"  # of a flag that is on, or off
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    YES: r"$\checkmark$",
}


@dataclass
class Result:
    """A finished run: its scores (fractions), the fingerprints in its log and, of a test split, its report."""

    combination: str
    values: Values
    seed: int
    scores: dict[str, float]
    fingerprints: dict[str, Any]
    report: dict[str, Any] | None = None


@dataclass
class Row:
    """One combination: its name, the value of each flag, and the scores of each finished run by seed (fractions)."""

    name: str
    values: Values
    runs: dict[int, dict[str, float]]

    def scores(self) -> list[str]:
        """Scores that every finished run has."""
        runs = list(self.runs.values())
        return [name for name in HEADINGS if runs and all(name in run for run in runs)]

    def mean(self, score: str) -> float:
        return statistics.fmean(run[score] for run in self.runs.values())

    def deviation(self, score: str) -> float | None:
        """Of the sample (n - 1); None for a single run."""
        return statistics.stdev(run[score] for run in self.runs.values()) if len(self.runs) > 1 else None


def write_table(
    folder: Path, combinations: dict[str, Values], seeds: list[int], results: list[Result], validation: Path
) -> str:
    """Write ablation.md, ablation.csv and ablation.tex into `folder`; returns the Markdown, which reads as plain text too.

    Args:
        combinations: name -> the value of each ablated flag, the same flags in all. results: of the finished runs, one or
            more. validation: the split that chose their best-res.
    """
    rows = {name: Row(name, values, {}) for name, values in combinations.items()}
    for result in results:
        rows[result.combination].runs[result.seed] = result.scores
    left_out = not_comparable([result.report for result in results if result.report])
    left_out = {score: fact for score, fact in left_out.items() if any(score in row.scores() for row in rows.values())}
    for row in rows.values():
        row.runs = {seed: {k: v for k, v in run.items() if k not in left_out} for seed, run in row.runs.items()}
    notes = _notes(results, seeds, len(combinations) * len(seeds), validation, left_out)
    rows = list(rows.values())
    scores = [name for name in HEADINGS if any(name in row.scores() for row in rows)]
    cells = [["", *rows[0].values, "runs", *(HEADINGS[name] for name in scores)]]
    cells += [_cells(row, scores) for row in rows]
    table = aligned_table([[_escaped_markdown(cell) for cell in row] for row in cells])
    markdown = table + "".join(f"\n{_escaped_markdown(note)}\n" for note in notes)
    write_text(folder / "ablation.md", markdown)
    write_text(folder / "ablation.tex", _latex(cells, notes))
    columns = ["combination", *rows[0].values, "runs", "seeds"]
    columns += [f"{name}_{kind}" for name in scores for kind in ("mean", "std")]
    write_rows(folder / "ablation.csv", columns, [_csv_row(row) for row in rows])
    return markdown


def _notes(results: list[Result], seeds: list[int], runs: int, validation: Path, left_out: dict[str, str]) -> list[str]:
    """The sentences under the table. left_out: score -> the fact in which the runs differ."""
    if report := results[0].report:
        name = report.get("test_set") or "a test split without a name"
        notes = [f"Scores of {report.get('evaluated_file')} ({name}); checkpoint: best-res of {validation}."]
    else:
        notes = [
            f"Scores of best-res on {validation}, the split that chose it among the epochs and therefore favours it; --test "
            "scores it on the test split."
        ]
    words = "Mean and standard deviation of the sample (n - 1)" if len(seeds) > 1 else "One seed: no standard deviation"
    which = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
    notes.append(f"In percent, words for max-LCS. {words}; {which}.")
    if len(results) < runs:
        notes.append(f"WARNING: {runs - len(results)} of {runs} runs are missing.")
    if left_out:
        notes.append(left_out_line(left_out))
    if found := _unexpected_differences(results):
        notes.append(f"WARNING: the runs do not agree in {in_words(found)}: do not compare them.")
    return notes


def _unexpected_differences(results: list[Result]) -> list[str]:
    """Fingerprints in which runs differ although no ablated flag makes them differ."""
    found = []
    for flag, action in declared().items():
        if action.fingerprint is None:
            continue
        groups: dict[tuple, list[dict]] = {}
        for result in results:  # the other two flags change encoders and decoders as well
            key = tuple(result.values.get(name) for name in (flag, "from_scratch", "fixed_encoder"))
            groups.setdefault(key, []).append(result.fingerprints)
        if any(differing(group, [action.fingerprint]) for group in groups.values()):
            found.append(action.fingerprint)
    return found


def _cells(row: Row, scores: list[str]) -> list[str]:
    values = [YES if value is True else NO if value is False else value for value in row.values.values()]
    present = row.scores()
    return [row.name, *values, str(len(row.runs)), *(_score(row, name) if name in present else NO for name in scores)]


def _score(row: Row, name: str) -> str:
    scale = 1 if name in PLAIN_SCORES else 100
    deviation = row.deviation(name)
    return f"{scale * row.mean(name):.2f}" + ("" if deviation is None else f" ± {scale * deviation:.2f}")


def _csv_row(row: Row) -> dict[str, object]:
    """Fractions at full precision; flags as on the command line."""
    cells = {"combination": row.name} | {name: str(value) for name, value in row.values.items()}
    cells |= {"runs": len(row.runs), "seeds": " ".join(map(str, row.runs))}
    for name in row.scores():
        cells |= {f"{name}_mean": row.mean(name), f"{name}_std": row.deviation(name)}
    return {name: value for name, value in cells.items() if value is not None}


def _escaped_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<")


def escaped_latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _latex(cells: list[list[str]], notes: list[str]) -> str:
    """A table that \\input takes."""
    head, *body = ["  " + " & ".join(map(escaped_latex, row)) + r" \\" for row in cells]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,amssymb}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped_latex(' '.join(notes))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(cells[0]) - 1)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
