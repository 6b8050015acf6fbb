"""The run's log: one JSON object a line, appended as it happens and never rewritten.

    {"start": {...}}        flags and fingerprints of the run; with "resumed" or "continued" saying from what
    {"losses": {...}}       epoch, step, updates done, loss, and each term before its weight; beside it
                            "learning_rates": of that update, by part of the model
    {"scores": {...}}       epoch, step, updates done, and every score of an evaluation; beside it
                            "samples": explanations of the first images, by name
    {"end": {...}}          the training is done: "epoch", "step" (of its best-res, as in its scores; None where that is
                            of a run before)

A resumed run does the steps again that its last state did not hold: of two lines with one epoch and step the later counts.
"""

import json
import math
import re
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
        """Append one line {kind: content}, with what stands beside it."""
        line = json.dumps({kind: content} | beside, ensure_ascii=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b") as file:
            if file.tell() and not self._ends_with_newline(file):
                line = b"\n" + line
            file.write(line)

    @staticmethod
    def _ends_with_newline(file) -> bool:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


@dataclass
class RunHistory:
    """What a log tells of the training that its last line belongs to.

    flags, fingerprints: of the last start. end: what the log says of its end, None where it has not come. losses, scores: points in order, each {"epoch", "step", "updates", name: value, ...}; beside
    them learning_rates, and samples, under the same index.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    losses: list[dict[str, float]] = field(default_factory=list)
    learning_rates: list[dict[str, float]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    fingerprints: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None


def read_log(path: Path) -> RunHistory:
    """Read a log without the points that later starts gave up.

    A resumed run gives up what its state did not hold, one that continues a checkpoint the epochs behind it, and any other
    start all that was there before. A line that a kill cut short is passed over.

    Raises:
        InputError: no such file, or lines that are not of such a log.
    """
    remedy = "name the folder of a training run, which holds log.jsonl"
    start: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    points: dict[str, dict[tuple[int, int], tuple[dict, dict]]] = {"losses": {}, "scores": {}}
    for number, line in enumerate(read_bytes(path, remedy).split(b"\n"), start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a blank line, or one that was cut short
        problem = f"{path}: line {number} is not of a run's log; {remedy}"
        if not isinstance(entry, dict):
            raise InputError(problem)
        if isinstance(entry.get("start"), dict):
            start, end = entry["start"], None
            given_up = _first_given_up(start)
            for kept in points.values():
                for place in [place for place in kept if place >= given_up]:
                    del kept[place]
        if isinstance(entry.get("end"), dict):
            end = entry["end"]
        for kind, beside in (("losses", "learning_rates"), ("scores", "samples")):
            if kind not in entry:
                continue
            point, more = entry[kind], entry.get(beside, {})
            if not _is_point(point) or not isinstance(more, dict):
                raise InputError(problem)
            place = (point["epoch"], point["step"])
            points[kind].pop(place, None)  # the later line stands at the later place
            points[kind][place] = (point, more)
    if start is None:
        raise InputError(f"{path}: tells of no run; {remedy}")
    flags, fingerprints = (
        start[name] if isinstance(start.get(name), dict) else {} for name in ("flags", "fingerprints")
    )
    history = RunHistory(flags, fingerprints=fingerprints, end=end)
    for kind, mine, beside in (
        ("losses", history.losses, history.learning_rates),
        ("scores", history.scores, history.samples),
    ):
        for _, (point, more) in sorted(points[kind].items()):
            mine.append(point)
            beside.append(more)
    return history


def _first_given_up(start: dict[str, Any]) -> tuple[int, int]:
    """The (epoch, step) from which on a start does everything anew."""
    if isinstance(start.get("continued"), dict) and type(start["continued"].get("epoch")) is int:
        return start["continued"]["epoch"], 0
    state = re.fullmatch(r"(\d+)-(\d+)", str(start.get("resumed")))
    return (int(state[1]), int(state[2])) if state else (-1, 0)


def _is_point(point: object) -> bool:
    if not isinstance(point, dict) or any(type(point.get(name)) is not int for name in PLACE):
        return False
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in point.values())


def finite(points: list[dict[str, float]], name: str) -> tuple[list[int], list[float]]:
    """Updates and values of one curve; points without it, or with NaN or infinity, are left out."""
    found = [(point["updates"], point[name]) for point in points if math.isfinite(point.get(name, math.nan))]
    return [updates for updates, _ in found], [value for _, value in found]
