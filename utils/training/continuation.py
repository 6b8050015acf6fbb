"""How a run goes on: exactly where it stopped (`--resume`), or after a named checkpoint (`--load_from_epoch`)."""

from typing import Any

from utils.errors import InputError, brief
from utils.run_record import compare_for_resume
from utils.training.named_checkpoints import NamedCheckpoint
from utils.training.optimizer import set_schedule
from utils.training.resume_states import ResumeState, load_state, start_anew
from utils.training.training_run import Progress, TrainingRun, exact_state

# what torch and we raise over a state whose parts are missing, or of other kinds or sizes than ours
UNFIT_STATE = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)


def resume(run: TrainingRun) -> str | None:
    """Continue from the newest whole state; returns its folder's name, or None when the run had not got as far as one.

    Raises:
        InputError: flags or files make another training than the one that was stopped, or the state is damaged.
    """
    found, notes = load_state(run.args.ckpt_path)
    for note in notes:
        run.say(note)
    if found is None:
        run.say(f"{run.args.ckpt_path}: no state to resume from yet: starting at the beginning")
        return None
    try:
        notes = compare_for_resume(found.settings, run.settings)
        progress = checked_progress(run, found.state["progress"])
        _restore(run, found)
    except UNFIT_STATE as error:
        raise InputError(
            f"{found.folder}: is not a state of this program ({brief(error)}); start anew without --resume, in another "
            "--ckpt_path"
        ) from None
    run.progress = progress
    for note in notes:
        run.say(note)
    run.say(f"resumed at epoch {progress.epoch}, step {progress.step}")
    return found.folder.name


def _restore(run: TrainingRun, found: ResumeState) -> None:
    state = found.state
    missing, unexpected = run.model.load_state_dict(state["model"], strict=False)
    lacking = [name for name in missing if not name.startswith("image_encoder.") or not run.args.fixed_encoder]
    if lacking or unexpected:
        raise InputError(f"{found.folder}: is of another model: {', '.join((lacking + unexpected)[:4])}")
    load_optimizer(run, state["optimizer"], state["scheduler"])
    if state["scaler"] is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])


def checked_progress(run: TrainingRun, record: dict[str, Any]) -> Progress:
    """The progress record of a state, held against this run: ValueError names what cannot be."""
    progress = Progress(**record)
    steps, epochs = run.steps_per_epoch, run.args.num_train_epochs
    for name, most in (("epoch", epochs), ("step", steps), ("updates", epochs * run.updates_per_epoch)):
        _check_count(name, getattr(progress, name), most)
    _check_count("without_gain", progress.without_gain, 10**9)
    if progress.step % run.args.gradient_accumulation_steps and progress.step != steps:
        raise ValueError(f"step {progress.step} lies between two updates")
    if progress.updates != run.updates_before(progress.epoch, progress.step):
        raise ValueError(f"{progress.updates} updates at epoch {progress.epoch}, step {progress.step}")
    for name in ("best_acc", "best_res"):
        score = getattr(progress, name)
        if not _is_score(score):
            raise ValueError(f"{name} {str(score)[:40]} is no score")
    if not isinstance(progress.evaluation_due, bool):
        raise ValueError("evaluation_due is neither true nor false")
    for name in ("evaluated", "best_res_at"):
        numbers = getattr(progress, name)
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise ValueError(f"{name} is no list of numbers")
    if not isinstance(progress.scores, list):
        raise ValueError("scores is no list")
    for scores in progress.scores:
        if not isinstance(scores, dict) or not all(
            isinstance(name, str) and name.isidentifier() and _is_score(value) for name, value in scores.items()
        ):
            raise ValueError("scores holds something else than names and numbers")
        if not {"epoch", "step"} <= scores.keys():
            raise ValueError("scores lack their epoch and step")
    return progress


def _is_score(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # nor NaN; steps are among the scores


def _check_count(name: str, value: object, most: int) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} {str(value)[:40]} is not an integer from 0 to {most}")


def load_optimizer(run: TrainingRun, optimizer: dict, scheduler: dict) -> None:
    """Load the states of AdamW and its schedule; ValueError where they do not fit each other or the weights."""
    if type(scheduler["last_epoch"]) is not int or scheduler["last_epoch"] < 0:
        raise ValueError("the schedule's position is no number of updates")
    rates = scheduler["base_lrs"]
    if not isinstance(rates, list) or len(rates) != len(run.parameter_names):
        raise ValueError("the schedule has other learning rates than parameter groups")
    run.optimizer.load_state_dict(optimizer)
    run.scheduler.load_state_dict(scheduler)
    for parameter, averages in run.optimizer.state.items():
        if any(average.shape not in (parameter.shape, ()) for average in averages.values()):
            raise ValueError("an average of AdamW is not of its weight's shape")


def continue_from(run: TrainingRun, checkpoint: NamedCheckpoint) -> None:
    """Continue at the epoch after a checkpoint's, with its optimiser where that fits; writes a first state.

    Learning rates and AdamW's epsilon are those of the flags, which are the checkpoint's own where they are not given.
    States that an earlier run left in the folder are set aside: they belong to a future that is given up.
    """
    args, stats = run.args, checkpoint.stats
    if stats.get("epoch", -1) + 1 >= args.num_train_epochs:
        raise InputError(
            f"{checkpoint.folder}: is of epoch {stats['epoch']}, the last of --num_train_epochs {args.num_train_epochs}; give "
            "more epochs to continue"
        )
    rates = [group["initial_lr"] for group in run.optimizer.param_groups]
    run.progress.epoch = int(stats.get("epoch", -1)) + 1
    run.progress.best_acc = float(stats.get("best_acc", -1.0))
    run.progress.best_res = float(stats.get("best_res", -1.0))
    done = run.progress.updates = run.updates_before(run.progress.epoch, 0)
    if stats.get("parameter_names") == run.parameter_names:
        try:
            load_optimizer(run, stats["optimizer_state_dict"], stats["scheduler"])
        except UNFIT_STATE as error:
            raise InputError(
                f"{checkpoint.folder}: its optimiser state cannot be used ({brief(error)}); take another checkpoint"
            ) from None
    else:
        run.say(f"{checkpoint.folder}: its optimiser state is of other parameters: AdamW starts anew")
    set_schedule(run.scheduler, rates, args.adam_eps, done)
    run.say(
        f"continuing at epoch {run.progress.epoch} of {args.num_train_epochs}, with --learning_rate {args.learning_rate:g}, "
        f"--en_LR {args.en_LR:g}, --emo_en_LR {args.emo_en_LR:g}, which fall to 0 over all epochs"
    )
    if run.accelerator.is_main_process:
        aside = start_anew(args.ckpt_path, run.progress.epoch, 0, exact_state(run), run.settings)
        if aside is not None:
            run.say(f"the states of the run before are set aside in {aside}")
    run.accelerator.wait_for_everyone()
