"""Curves of a run in TensorBoard, Weights & Biases and Trackio (--report_to), through accelerate's trackers.

The axis is the number of optimiser updates. None of the three can take points back reliably, so a run that is resumed or
continued writes its whole past anew, from its log and without what was given up: TensorBoard then forgets the points before,
in Weights & Biases and Trackio a new run begins that holds the whole curves.
"""

from datetime import datetime
from itertools import chain
from typing import Any

from accelerate import Accelerator

from utils.errors import InputError, brief
from utils.run_record import flags_of
from utils.training.run import TrainingRun
from utils.training.run_log import PLACE, RunHistory, read_log

TENSORBOARD = "tensorboard"  # folder below --caption_save_path
PROJECT = "sevlm"


def start_trackers(run: TrainingRun) -> None:
    """Begin what --report_to names, with the points of the run so far; on the main process only.

    Raises:
        InputError: a tracker does not begin, for want of a login say.
    """
    args, accelerator = run.args, run.accelerator
    if not (accelerator.log_with and accelerator.is_main_process):
        return
    flags = flags_of(args)
    began = datetime.now().isoformat(sep=" ", timespec="milliseconds")
    name = f"{args.caption_save_path} {began}"  # of two runs with one name the curves would be joined
    kwargs = {
        "tensorboard": {"purge_step": 0},
        "wandb": {"name": name, "config": flags, "dir": str(args.caption_save_path)},
        "trackio": {"name": name, "config": flags},
    }
    try:
        accelerator.init_trackers(PROJECT, init_kwargs=kwargs)
    except Exception as error:  # each has errors of its own, and so has the network below it
        trackers = " ".join(args.report_to)
        raise InputError(
            f"--report_to {trackers}: it does not begin ({brief(error)}); log in, work offline (WANDB_MODE=offline), or leave "
            "the flag out"
        ) from None
    _tell_past(
        accelerator, read_log(run.log.path), [run.progress.epoch, run.progress.step], run.progress.evaluation_due
    )


def _tell_past(accelerator: Accelerator, past: RunHistory, place: list[int], evaluation_due: bool) -> None:
    """Every point of the log, in order; but the evaluation that will be made again."""
    losses = zip(past.losses, past.learning_rates, strict=True)
    scores = zip(past.scores, past.samples, strict=True)
    if evaluation_due:
        scores = [(point, samples) for point, samples in scores if [point["epoch"], point["step"] + 1] != place]
    told = [(point["updates"], loss_values(point, rates)) for point, rates in losses]
    told += [(point["updates"], score_values(point, samples)) for point, samples in scores]
    for updates, values in sorted(told, key=lambda entry: entry[0]):
        accelerator.log(values, step=updates)


def loss_values(point: dict[str, float], rates: dict[str, float]) -> dict[str, float]:
    """One point of the losses' curves, and of the learning rates'."""
    return dict(
        chain(
            ((f"train/{name}", value) for name, value in point.items() if name not in PLACE),
            ((f"learning_rate/{part}", rate) for part, rate in rates.items()),
        )
    )


def score_values(point: dict[str, float], samples: dict[str, str]) -> dict[str, Any]:
    """One point of the scores' curves, with the sample captions as one text."""
    values: dict[str, Any] = {f"scores/{name}": value for name, value in point.items() if name not in PLACE}
    if samples:
        values["sample captions"] = "\n\n".join(f"{name}: {caption}" for name, caption in samples.items())
    return values
