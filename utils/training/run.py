"""A training run: what it consists of, where it stands, and how it is saved and continued."""

import argparse
from dataclasses import asdict, dataclass, field

from accelerate import Accelerator

from models.sevlm import SEVLM
from utils.data.image_inputs import ImageInputs
from utils.data.text_codec import TextCodec
from utils.data.vad_lookup import Lexicon
from utils.errors import InputError, brief
from utils.evaluation.evaluator import Evaluator
from utils.training.checkpoint import NamedCheckpoint, load_state, save_state
from utils.training.stop_signals import StopSignals

# what torch and we raise over a state whose parts are missing, or of other kinds or sizes than ours
UNFIT_STATE = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass
class Progress:
    """Where a run stands; all that a continuation needs beside weights and optimiser.

    epoch, step: the next step to do (step: index within the epoch). evaluated: the [epoch, step] last scored.
    evaluation_due: the state was saved just before an evaluation. without_gain: evaluations in a row that brought no
    better score. scores, losses: what was logged so far.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_acc: float = -1.0
    best_res: float = -1.0
    without_gain: int = 0
    evaluation_due: bool = False
    evaluated: list[int] = field(default_factory=list)
    scores: list[dict] = field(default_factory=list)
    losses: list[dict] = field(default_factory=list)


class Run:
    """One training or evaluation: what the training script builds and hands from function to function.

    `prepare_training` adds what only a training has: dataset, batches, loader, steps_per_epoch, updates_per_epoch,
    parameters and their names, optimizer, scheduler, and `prepared`, the model as accelerate wants it; `evaluate` keeps its
    last_evaluation.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        accelerator: Accelerator,
        model: SEVLM,
        codec: TextCodec,
        lexicon: Lexicon | None,
        images: ImageInputs,
        evaluator: Evaluator,
    ):
        self.args, self.accelerator = args, accelerator
        self.codec, self.lexicon, self.images, self.evaluator = codec, lexicon, images, evaluator
        self.model = model  # the bare module
        self.progress = Progress()
        self.signals = StopSignals()

    def say(self, text: str) -> None:
        self.accelerator.print(text)


def config_fields(run: Run) -> dict:
    """What config.json holds beside the decoder's sizes: what must be the same when the model is used again."""
    args = run.args
    names = (
        "clip_model",
        "prompt_text",
        "lemmatizer",
        "use_VAD",
        "masked_pooling",
        "clip_normalization",
        "fixed_encoder",
    )
    lexicon = None if run.lexicon is None else run.lexicon.describe()
    return {name: getattr(args, name) for name in names} | {"vad_lexicon": lexicon, "seed": args.seed}


def stats(run: Run) -> dict:
    """What ckpt_stats_<name>.tar holds beside the encoders, under the published keys."""
    return {
        "epoch": run.progress.epoch,
        "best_acc": run.progress.best_acc,
        "best_res": run.progress.best_res,
        "optimizer_state_dict": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "parameter_names": run.parameter_names,
        "progress": asdict(run.progress),
    }


def save_run(run: Run) -> None:
    """Write a state that --resume continues from exactly."""
    if run.accelerator.is_main_process:
        encoder = run.model.image_encoder
        frozen = "image_encoder." if encoder is not None and encoder.fixed else "\0"
        weights = {name: tensor for name, tensor in run.model.state_dict().items() if not name.startswith(frozen)}
        scaler = run.accelerator.scaler
        state = {
            "model": weights,
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "progress": asdict(run.progress),
            "settings": resume_settings(run),
        }
        save_state(run.args.ckpt_path, run.progress.epoch, run.progress.step, state)
    run.accelerator.wait_for_everyone()


def resume_settings(run: Run) -> dict:
    """What must not change between a state and its continuation, else it is another training."""
    args = run.args
    global_batch = args.batch_size * run.accelerator.num_processes
    names = ("seed", "num_train_epochs", "use_cl_loss", "use_VAD_loss", "use_VAD", "first_text", "fixed_encoder")
    settings = {name: getattr(args, name) for name in names}
    return settings | {"images per step": global_batch, "images": run.batches.size}


def resume(run: Run) -> None:
    """Continue from the newest whole state, or begin when the run had not got as far as one."""
    state, notes = load_state(run.args.ckpt_path)
    for note in notes:
        run.say(note)
    if state is None:
        run.say(f"{run.args.ckpt_path}: no state to resume from yet: starting at the beginning")
        return
    try:
        restore(run, state)
    except UNFIT_STATE as error:
        raise InputError(
            f"{run.args.ckpt_path}/resume: the newest state.pt is not of this program ({brief(error)}); start anew "
            "without --resume"
        ) from None
    run.say(f"resumed at epoch {run.progress.epoch}, step {run.progress.step}")


def restore(run: Run, state: dict) -> None:
    """Put a state's weights, optimiser, schedule and progress into the run; errors of several kinds where it is not of this program."""
    for name, value in resume_settings(run).items():
        if state["settings"].get(name) != value:
            raise InputError(
                f"--resume: {name} was {state['settings'].get(name)} and is {value} now; give the same flags as before "
                "(with another number of processes: a --batch_size that makes the same images per step)"
            )
    missing, unexpected = run.model.load_state_dict(state["model"], strict=False)
    lacking = [name for name in missing if not name.startswith("image_encoder.") or not run.args.fixed_encoder]
    if lacking or unexpected:
        raise InputError(f"--resume: the state is of another model: {', '.join((lacking + unexpected)[:4])}")
    load_optimizer(run, state["optimizer"], state["scheduler"])
    if state["scaler"] is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.progress = Progress(**state["progress"])


def load_optimizer(run: Run, optimizer: dict, scheduler: dict) -> None:
    """Load the states of AdamW and its schedule; ValueError where an average is not of its weight's shape."""
    run.optimizer.load_state_dict(optimizer)
    run.scheduler.load_state_dict(scheduler)
    for parameter, averages in run.optimizer.state.items():
        if any(average.shape not in (parameter.shape, ()) for average in averages.values()):
            raise ValueError("an average of AdamW is not of its weight's shape")


def continue_from(run: Run, checkpoint: NamedCheckpoint) -> None:
    """--load_from_epoch: continue at the epoch after the checkpoint's, with its optimiser where it fits."""
    run.progress.epoch = int(checkpoint.stats.get("epoch", -1)) + 1
    run.progress.best_acc = float(checkpoint.stats.get("best_acc", -1.0))
    run.progress.best_res = float(checkpoint.stats.get("best_res", -1.0))
    if checkpoint.stats.get("parameter_names") == run.parameter_names:
        try:
            load_optimizer(run, checkpoint.stats["optimizer_state_dict"], checkpoint.stats["scheduler"])
        except UNFIT_STATE as error:
            raise InputError(
                f"{checkpoint.folder}: its optimiser state cannot be used ({brief(error)}); take another checkpoint"
            ) from None
    else:
        run.say(
            f"{checkpoint.folder}: its optimiser state is of other parameters: AdamW starts anew, the schedule goes on"
        )
        for _ in range(run.progress.epoch * run.updates_per_epoch):
            run.scheduler.step()
    run.say(f"continuing at epoch {run.progress.epoch}")
