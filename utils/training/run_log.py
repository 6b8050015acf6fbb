"""The run's log, and its curves in TensorBoard, Weights & Biases and Trackio (--report_to).

log.jsonl has one JSON object a line, appended as it happens and never rewritten:

    {"start": {...}}        flags and fingerprints of the run; with "resumed" or "continued", from what
    {"losses": {...}}       epoch, step, updates done, loss, and each term before its weight; beside it
                            "learning_rates": of that update, by part of the model
    {"scores": {...}}       epoch, step, updates done, and every score of an evaluation; beside it
                            "samples": explanations of the first images, by name
    {"end": {...}}          the training is done: "epoch" and "step" of its best-res, as in its scores (None if best-res is
                            still an earlier run's)

A resumed run repeats the steps after its last state: of two lines with the same epoch and step the later counts.
"""

import argparse
import json
import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import InputError, brief
from utils.files import read_bytes
from utils.layout import LOG_FILE
from utils.run_record import flags_of

if TYPE_CHECKING:
    from accelerate import Accelerator

PLACE = ("epoch", "step", "updates")  # what a point has beside its values
TENSORBOARD = "tensorboard"  # folder below --caption_save_path
PROJECT = "sevlm"  # in the trackers


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


# ---- trackers --------------------------------------------------------------------------------------------------------


def start_trackers(
    args: argparse.Namespace, accelerator: "Accelerator", log: RunLog, repeated: list[int] | None
) -> None:
    """Start what --report_to names, with the points of the run so far, by optimiser updates; on the main process only.

    None of the trackers can reliably delete points, so a run that is resumed or continued writes all of them again from
    its log: TensorBoard then forgets the earlier ones; in Weights & Biases and Trackio a new run begins.

    Args:
        repeated: the [epoch, step] of an evaluation that will be made again, or None; its points are left out.

    Raises:
        InputError: a tracker does not start, without a login for example.
    """
    if not (accelerator.log_with and accelerator.is_main_process):
        return
    started = datetime.now().isoformat(sep=" ", timespec="milliseconds")
    name = f"{args.caption_save_path} {started}"  # two runs of the same name would share their curves
    kwargs = {
        "tensorboard": {"purge_step": 0},
        "wandb": {"name": name, "config": flags_of(args), "dir": str(args.caption_save_path)},
        "trackio": {"name": name, "config": flags_of(args)},
    }
    try:
        accelerator.init_trackers(PROJECT, init_kwargs=kwargs)
    except Exception as error:  # each tracker has its own errors, and so has the network
        raise InputError(
            f"--report_to {' '.join(args.report_to)}: does not start ({brief(error)}); log in, work offline "
            "(WANDB_MODE=offline), or leave the flag out"
        ) from None
    past = read_log(log.path)
    points = [
        (point["updates"], loss_values(point, rates))
        for point, rates in zip(past.losses, past.learning_rates, strict=True)
    ]
    points += [
        (point["updates"], score_values(point, samples))
        for point, samples in zip(past.scores, past.samples, strict=True)
        if [point["epoch"], point["step"] + 1] != repeated
    ]
    for updates, values in sorted(points, key=lambda point: point[0]):
        accelerator.log(values, step=updates)


def loss_values(point: dict[str, float], rates: dict[str, float]) -> dict[str, float]:
    """One point of the curves of losses and learning rates."""
    losses = {f"train/{name}": value for name, value in point.items() if name not in PLACE}
    return losses | {f"learning_rate/{part}": rate for part, rate in rates.items()}


def score_values(point: dict[str, float], samples: dict[str, str]) -> dict[str, Any]:
    """One point of the scores' curves, with the sample captions as one text."""
    values: dict[str, Any] = {f"scores/{name}": value for name, value in point.items() if name not in PLACE}
    if samples:
        values["sample captions"] = "\n\n".join(f"{name}: {caption}" for name, caption in samples.items())
    return values
