"""The ablation table: a row for each combination of flags, mean and standard deviation over the seeds; md, csv and tex."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from utils.evaluation.tables import HEADINGS, PLAIN_SCORES, aligned_table
from utils.files import write_rows, write_text

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
class Row:
    """One combination: its name, the value of each flag, and the scores of each finished run by seed (fractions)."""

    name: str
    values: dict[str, bool | str]
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


def write_table(folder: Path, rows: list[Row], notes: list[str]) -> str:
    """Write ablation.md, ablation.csv and ablation.tex into `folder`; returns the Markdown, which reads as plain text too.

    Args:
        notes: what the scores are of, one sentence or more each; they stand under the table.
    """
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
