"""Curves and figures of training runs, several overlaid, as PNG and SVG.

python -m utils.plots runs/demo
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cococaption.references import read_results
from utils.data.records import Records, read_records
from utils.errors import InputError, OneLineParser, run_script
from utils.evaluation.emotion_metrics import confusion_matrix, reliability
from utils.evaluation.evaluation import evaluation_file, read_distributions
from utils.files import atomic_path, check_place
from utils.layout import LOG_FILE
from utils.runs import recorded_path, results_folder
from utils.training.run_log import PLACE, RunHistory, finite, read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from utils.visualize.figures import Curve


@dataclass
class Run:
    """A run to be drawn: its name in legends, the folder that holds log.jsonl, and the log's content."""

    name: str
    folder: Path
    history: RunHistory

    def curves(self, points: list[dict]) -> "dict[str, Curve]":
        """name -> (updates, values) of all losses or scores."""
        names = dict.fromkeys(name for point in points for name in point if name not in PLACE)
        return {name: finite(points, name) for name in names}

    def file_of_last_evaluation(self, kind: str) -> Path:
        """See `evaluation_file`."""
        last = self.history.scores[-1]
        return evaluation_file(self.folder, kind, last["epoch"], last["step"])


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m utils.plots", description="Draw training runs, several overlaid.")
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders of runs, e.g. runs/demo, or of their results or checkpoints",
    )
    parser.add_argument("--out", type=Path, help="folder for the figures (default: plots/ in the first run's)")
    return parser


def read_run(path: Path) -> Run:
    """Read a run's log; InputError where there is none, or nothing to draw."""
    folder = results_folder(path)
    if not (folder / LOG_FILE).is_file():
        raise InputError(f"{folder}: holds no {LOG_FILE}; name a training run")
    name = str(path if path.name else path.absolute())
    name = f"./{name}" if name.startswith("_") else name  # matplotlib hides labels that begin so
    run = Run(name, folder, read_log(folder / LOG_FILE))
    if not run.history.losses and not run.history.scores:
        raise InputError(f"{folder / LOG_FILE}: has no losses and no scores yet; wait for --log_steps steps of the run")
    return run


def records_of(run: Run) -> Records:
    """The split that a run was scored on; InputError where its file is missing or is not a split."""
    path = recorded_path(run.history.flags, "nle_data_val_path", run.folder)
    if path is None or not path.is_file():
        raise InputError(
            f"{path}: no such file, which is the scored split; work in the folder where the run was started"
        )
    return read_records(path)


def captions_of(run: Run, kind: str, records: Records) -> dict[int, str]:
    """Texts of the last evaluation, kind "full" or "exp"; InputError where they are of another split."""
    path = run.file_of_last_evaluation(f"unf_captions_{kind}")
    captions = read_results(path)
    unknown = [image_id for image_id in captions if str(image_id) not in records]
    if unknown:
        raise InputError(f"{path}: image {unknown[0]} is not in the scored split; give the split that the run had")
    return captions


def calibration_of(run: Run, records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bins of the last evaluation's emotion head; InputError where there is no such head."""
    path = run.file_of_last_evaluation("emotion_head")
    if not path.is_file():
        raise InputError(f"{run.name}: has no emotion head (--use_emotion_loss)")
    return reliability(read_distributions(path), records)


def words_of(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def figures(runs: list[Run]) -> "tuple[dict[str, Figure], list[str]]":
    """Every figure that the runs have data for, by file name, and a line for each that a run is missing from."""
    # matplotlib, whose import takes a second and fails on a notebook's MPLBACKEND until that is removed
    from utils.visualize.figures import (
        calibration_figure,
        confusion_figure,
        lengths_figure,
        losses_figure,
        scores_figure,
    )

    drawn: dict[str, Figure] = {}
    notes: list[str] = []
    losses = {run.name: run.curves(run.history.losses) for run in runs if run.history.losses}
    if losses:
        drawn["losses"] = losses_figure(losses)
    scored = [run for run in runs if run.history.scores]
    notes += [f"{run.name}: no evaluation yet: only its losses are drawn" for run in runs if run not in scored]
    if not scored:
        return drawn, notes
    test_sets = {run.history.flags.get("test_set") for run in scored}
    drawn["scores"] = scores_figure(
        {run.name: run.curves(run.history.scores) for run in scored}, test_sets.pop() if len(test_sets) == 1 else None
    )
    matrices, bins, lengths, references = {}, {}, {}, []
    for run in scored:
        try:
            records = records_of(run)
            lengths[run.name] = words_of(list(captions_of(run, "exp", records).values()))
            references = references or words_of([text for r in records.values() for text in r["explanations"]])
            matrices[run.name] = confusion_matrix(captions_of(run, "full", records), records)
            bins[run.name] = calibration_of(run, records)
        except InputError as error:
            notes.append(f"not drawn: {error}")
    names = [run.name for run in runs]
    if lengths:
        drawn["lengths"] = lengths_figure(lengths, references, names)
    if matrices:
        drawn["confusion"] = confusion_figure(matrices)
    if bins:
        drawn["calibration"] = calibration_figure(bins, names)
    return drawn, notes


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    runs = [read_run(path) for path in dict.fromkeys(args.runs)]
    folder = args.out or runs[0].folder / "plots"
    check_place(folder / "losses.png")
    drawn, notes = figures(runs)
    for note in notes:
        print(note)
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            with atomic_path(folder / f"{name}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        print(folder / f"{name}.png")


if __name__ == "__main__":
    sys.exit(run_script(main))
