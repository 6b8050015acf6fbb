"""Figures of runs, which differ in colour, line style and marker, so that they can be distinguished in grey as well.

Data in, matplotlib figures out; no display is needed and nothing is written.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.constants import EMOTIONS
from utils.evaluation.emotion_metrics import ece_of_bins, f1_of_confusion
from utils.evaluation.tables import HEADINGS, PUBLISHED, PUBLISHED_SCORES

matplotlib.rcParams |= {
    "text.parse_math": False,  # folder names are not formulas
    "svg.fonttype": "none",
    "svg.hashsalt": "sevlm",  # the same file for the same data
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "font.size": 9,
}

# Okabe and Ito's colours, which colour-blind people can distinguish, from dark to light; the counts have no common divisor
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v")
PUBLISHED_LINES = ((0, (1, 1)), (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (1, 3)))

Curve = tuple[Sequence[float], Sequence[float]]  # x, y


def style(number: int, points: int = 1) -> dict:
    """Line and marker of run `number`; on long curves only some points have a marker."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markevery": max(points // 12, 1),
        "markersize": 4,
        "linewidth": 1.4,
    }


def losses_figure(curves: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """One panel for each loss. curves: run -> loss -> (updates, values)."""
    names = _in_order(curves)
    figure, panels = _panels(len(names))
    for name, axes in zip(names, panels, strict=True):
        _draw(axes, {run: of_run[name] for run, of_run in curves.items() if name in of_run}, list(curves))
        axes.set(title=name.replace("_", " "), xlabel="updates", ylabel="loss")
    _legend(figure, panels, list(curves))
    return figure


def scores_figure(curves: Mapping[str, Mapping[str, Curve]], test_set: str | None) -> Figure:
    """One panel for each score, in percent, with the published scores of the test set as lines across.

    Args:
        curves: run -> score -> (updates, fractions 0 .. 1).
        test_set: what was scored, one of `TEST_SETS`; None: nothing is published for it.
    """
    scores = _in_order(curves)
    names = [name for name in HEADINGS if name in scores] + [name for name in scores if name not in HEADINGS]
    figure, panels = _panels(len(names))
    for name, axes in zip(names, panels, strict=True):
        of_runs = {run: of_run[name] for run, of_run in curves.items() if name in of_run}
        _draw(axes, {run: (x, [100 * value for value in y]) for run, (x, y) in of_runs.items()}, list(curves))
        if name in PUBLISHED_SCORES:
            place = PUBLISHED_SCORES.index(name)
            for (row, values), line in zip(PUBLISHED.get(test_set, {}).items(), PUBLISHED_LINES, strict=False):
                axes.axhline(values[place], color="0.45", linestyle=line, linewidth=1, label=row)
        axes.set(title=HEADINGS.get(name, name), xlabel="updates", ylabel="%")
    _legend(figure, panels, list(curves))
    return figure


def confusion_figure(matrices: Mapping[str, np.ndarray]) -> Figure:
    """One panel for each run: counts [9, 10], see `confusion_matrix`, tinted by their fraction of the row; F1 in percent."""
    columns = min(len(matrices), 2)
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(6.2 * columns, 5.4 * rows), layout="constrained")
    for number, (run, counts) in enumerate(matrices.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(fractions, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            if count:
                bold = "bold" if row == column else "normal"
                colour = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, weight=bold)
        axes.set_xticks(range(10), [*EMOTIONS, "other text"], rotation=45, ha="right", rotation_mode="anchor")
        f1 = f1_of_confusion(counts)
        axes.set_yticks(
            range(9), [f"{name} ({100 * value:.0f})" for name, value in zip(EMOTIONS, f1["F1"], strict=True)]
        )
        means = f"macro F1 {100 * f1['macro_F1']:.1f}, weighted F1 {100 * f1['weighted_F1']:.1f}"
        axes.set(title=f"{run}\n{means}", xlabel="emotion named", ylabel="dominant emotion (its F1)")
        axes.grid(False)
    return figure


def calibration_figure(bins: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], runs: list[str]) -> Figure:
    """Accuracy of the emotion head against its confidence, bin by bin, and how many images each bin has.

    Args:
        bins: run -> images, right ones and sum of confidences by bin, see `reliability`. runs: all, for their styles.
    """
    figure = Figure(figsize=(5.2, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    for run, (images, right, confidence) in bins.items():
        filled, look = images > 0, style(runs.index(run))
        label = f"{run} (ECE {100 * ece_of_bins(images, right, confidence):.1f} %)"
        x, y = confidence[filled] / images[filled], right[filled] / images[filled]
        upper.plot(x, y, label=label, clip_on=False, **look)
        edges = np.linspace(0, 1, len(images) + 1)
        lower.stairs(images, edges, color=look["color"], linestyle=look["linestyle"])
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="emotion head")
    lower.set(xlabel="confidence", ylabel="images")
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def lengths_figure(lengths: Mapping[str, Sequence[int]], references: Sequence[int], runs: list[str]) -> Figure:
    """Distribution of the explanations' lengths over that of the references.

    Args:
        lengths: run -> words of each explanation. references: words of each reference. runs: all, for their styles.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    most = max((max(words, default=0) for words in (references, *lengths.values())), default=0)

    def percent(words: Sequence[int]) -> np.ndarray:
        return 100 * np.bincount(words, minlength=most + 1) / max(len(words), 1)

    label = f"references (mean {np.mean(references):.1f})"
    axes.stairs(percent(references), np.arange(most + 2) - 0.5, fill=True, color="0.85", label=label)
    for run, words in lengths.items():
        axes.plot(range(most + 1), percent(words), label=f"{run} (mean {np.mean(words):.1f})", **style(runs.index(run)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="length of the explanations", xlabel="words", ylabel="% of the explanations")
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def _in_order(curves: Mapping[str, Mapping[str, Curve]]) -> list[str]:
    return list(dict.fromkeys(name for of_run in curves.values() for name in of_run))


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    columns = min(number, 3)
    rows = -(-number // columns)
    figure = Figure(figsize=(4 * columns, 2.7 * rows + 0.5), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place) for place in range(1, number + 1)]


def _draw(axes: Axes, curves: Mapping[str, Curve], runs: list[str]) -> None:
    for run, (x, y) in curves.items():
        axes.plot(x, y, label=run, **style(runs.index(run), len(x)))


def _legend(figure: Figure, panels: list[Axes], runs: list[str]) -> None:
    """One for all panels, runs first, below them."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [run for run in runs if run in handles] + [label for label in handles if label not in runs]
    figure.legend([handles[label] for label in order], order, loc="outside lower center", ncols=3, frameon=False)
