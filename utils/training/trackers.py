"""Curves of a run in TensorBoard, Weights & Biases and Trackio (--report_to), through accelerate's trackers.

The axis is the number of optimiser updates. None of the three can reliably delete points, so a run that is resumed or
continued writes all its points again, from its log and without those that the log discards: TensorBoard then forgets the
earlier ones; in Weights & Biases and Trackio a new run begins that holds the complete curves.
"""

from datetime import datetime
from typing import Any

from utils.errors import InputError, brief
from utils.run_record import flags_of
from utils.training.run import TrainingRun
from utils.training.run_log import PLACE, read_log

TENSORBOARD = "tensorboard"  # folder below --caption_save_path
PROJECT = "sevlm"


def start_trackers(run: TrainingRun) -> None:
    """Start what --report_to names, with the points of the run so far; on the main process only.

    Raises:
        InputError: a tracker does not start, without a login for example.
    """
    args, accelerator, progress = run.args, run.accelerator, run.progress
    if not (accelerator.log_with and accelerator.is_main_process):
        return
    flags = flags_of(args)
    started = datetime.now().isoformat(sep=" ", timespec="milliseconds")
    name = f"{args.caption_save_path} {started}"  # two runs of the same name would share their curves
    kwargs = {
        "tensorboard": {"purge_step": 0},
        "wandb": {"name": name, "config": flags, "dir": str(args.caption_save_path)},
        "trackio": {"name": name, "config": flags},
    }
    try:
        accelerator.init_trackers(PROJECT, init_kwargs=kwargs)
    except Exception as error:  # each tracker has its own errors, and so has the network
        raise InputError(
            f"--report_to {' '.join(args.report_to)}: does not start ({brief(error)}); log in, work offline "
            "(WANDB_MODE=offline), or leave the flag out"
        ) from None
    past = read_log(run.log.path)
    points = [
        (point["updates"], loss_values(point, rates))
        for point, rates in zip(past.losses, past.learning_rates, strict=True)
    ]
    points += [
        (point["updates"], score_values(point, samples))
        for point, samples in zip(past.scores, past.samples, strict=True)
        # not the evaluation that will be repeated
        if not (progress.evaluation_due and [point["epoch"], point["step"] + 1] == [progress.epoch, progress.step])
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
