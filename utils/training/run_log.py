"""The run's log: one JSON object a line, appended as it happens and never rewritten.

    {"start": {...}}        flags and fingerprints of the run; with "resumed" or "continued", from what
    {"losses": {...}}       epoch, step, updates done, loss, and each term before its weight; beside it
                            "learning_rates": of that update, by part of the model
    {"scores": {...}}       epoch, step, updates done, and every score of an evaluation; beside it
                            "samples": explanations of the first images, by name
    {"end": {...}}          the training is done: "epoch" and "step" of its best-res, as in its scores (None if best-res is
                            still an earlier run's)

A resumed run repeats the steps after its last state: of two lines with the same epoch and step the later counts.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import read_bytes

LOG_FILE = "log.jsonl"
PLACE = ("epoch", "step", "updates")  # what a point has beside its values


class RunLog:
    """Appends to <folder>/log.jsonl; a line that a kill cut short is closed first."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / LOG_FILE

    def write(self, kind: str, content: dict[str, Any], **beside: Any) -> None:
        """Append one line {kind: content}, with the entries of `beside`."""
        line = json.dumps({kind: content} | beside, ensure_ascii=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)


@dataclass
class RunHistory:
    """The training that the last line of a log belongs to.

    flags, fingerprints: of the last start. losses, scores: points in order, each {"epoch", "step", "updates", name: value,
    ...}; learning_rates and samples belong to them, index by index. end: the entry of its end, None if it has not ended.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    losses: list[dict[str, float]] = field(default_factory=list)
    learning_rates: list[dict[str, float]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    fingerprints: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None


def read_log(path: Path) -> RunHistory:
    """Read a log, without the points that a later start discarded.

    A resumed run discards what its state did not contain, one that continues a checkpoint the later epochs, and any other
    start everything before it. A line that a kill cut short is skipped.

    Raises:
        InputError: the file is missing or is not a run's log.
    """
    remedy = "name the folder of a training run, which holds log.jsonl"
    start: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    points: dict[str, dict[tuple[int, int], tuple[dict, dict]]] = {"losses": {}, "scores": {}}
    for number, line in enumerate(read_bytes(path, remedy).split(b"\n"), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a blank line, or one that was cut short
        try:
            if "start" in entry:
                start, end = entry["start"], None
                first_discarded = _first_discarded(start)
                for kind, known in points.items():
                    points[kind] = {place: point for place, point in known.items() if place < first_discarded}
            end = entry.get("end", end)
            for kind, beside in (("losses", "learning_rates"), ("scores", "samples")):
                if kind in entry:
                    epoch, step, _updates = (entry[kind][name] for name in PLACE)
                    points[kind][epoch, step] = (entry[kind], entry.get(beside, {}))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(f"{path}: line {number} is not of a run's log; {remedy}") from None
    if start is None:
        raise InputError(f"{path}: holds no start of a run; {remedy}")
    history = RunHistory(start.get("flags", {}), fingerprints=start.get("fingerprints", {}), end=end)
    for _, (point, learning_rates) in sorted(points["losses"].items()):
        history.losses.append(point)
        history.learning_rates.append(learning_rates)
    for _, (point, samples) in sorted(points["scores"].items()):
        history.scores.append(point)
        history.samples.append(samples)
    return history


def _first_discarded(start: dict[str, Any]) -> tuple[int, int]:
    """The (epoch, step) from which on a start repeats everything."""
    if "continued" in start:
        return start["continued"]["epoch"], 0
    if start.get("resumed"):
        epoch, step = start["resumed"].split("-")
        return int(epoch), int(step)
    return -1, 0


def finite(points: list[dict[str, float]], name: str) -> tuple[list[int], list[float]]:
    """Updates and values of one curve; points without it, or with NaN or infinity, are left out."""
    found = [(point["updates"], point[name]) for point in points if math.isfinite(point.get(name, math.nan))]
    return [updates for updates, _ in found], [value for _, value in found]
