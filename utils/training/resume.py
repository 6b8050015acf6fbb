"""Exact states of a run, which `--resume` continues bit for bit on a CPU; and the start of a run from one, or from a checkpoint.

    <ckpt_path>/resume/<epoch>-<step>/    state.pt, settings.json, manifest.json

The newest two are kept. A run that continues a checkpoint (`--load_from_epoch`) renames an earlier run's folder to resume-1,
resume-2 ...
"""

import argparse
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.data.untrusted_files import read_torch_file
from utils.errors import InputError
from utils.files import atomic_path, damaged_file, finish_renames, read_json, remove, write_manifest
from utils.layout import STATES_FOLDER, list_names
from utils.run_record import compare_for_resume
from utils.training.checkpoints import KEPT_STATES, NamedCheckpoint, finish_saves
from utils.training.optimizer import set_schedule
from utils.training.run import Progress, TrainingRun

STATE, SETTINGS = "state.pt", "settings.json"


class ResumeState(NamedTuple):
    """A state that was read.

    state: model, optimizer, scheduler, scaler and progress. settings: the run's record, see utils/run_record.py.
    """

    folder: Path
    state: dict[str, Any]
    settings: dict[str, Any]


# ---- files -----------------------------------------------------------------------------------------------------------


def save_state(ckpt_path: Path, epoch: int, step: int, state: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write a state, whole or not at all, and delete all but the newest two."""
    with atomic_path(ckpt_path / STATES_FOLDER / f"{epoch:05d}-{step:08d}", folder=True) as folder:
        torch.save(state, folder / STATE)
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        write_manifest(folder)
    for superseded in state_folders(ckpt_path)[KEPT_STATES:]:
        remove(superseded)


def state_folders(ckpt_path: Path) -> list[Path]:
    """Folders of states, newest first."""
    return sorted((ckpt_path / STATES_FOLDER).glob("[0-9]*-[0-9]*"), reverse=True)


def load_state(ckpt_path: Path) -> tuple[ResumeState | None, list[str]]:
    """The newest undamaged state, or None if there are no states; and a note on every damaged one that was skipped.

    Raises:
        InputError: there are states, and all are damaged.
    """
    notes = []
    for folder in state_folders(ckpt_path):
        damaged = damaged_file(folder)
        if damaged is None:
            return ResumeState(folder, read_torch_file(folder / STATE), read_json(folder / SETTINGS)), notes
        notes.append(
            f"{folder}: truncated or modified ({damaged} differs from its SHA-256); the state before it is used"
        )
    if notes:
        raise InputError(
            f"{ckpt_path / STATES_FOLDER}: every state is truncated or modified; start again without --resume, in another "
            "--ckpt_path"
        )
    return None, notes


def prepare_folder(ckpt_path: Path, resume: bool, continued: bool) -> None:
    """Before a training: complete what a kill left between two renames, and refuse to mix two runs.

    Args:
        resume, continued: whether --resume or --load_from_epoch is given.

    Raises:
        InputError: a new run would write among another's states, or there is nothing that --resume could continue.
    """
    finish_saves(ckpt_path)
    finish_renames(ckpt_path / STATES_FOLDER)
    states = state_folders(ckpt_path)
    if states and not resume and not continued:
        raise InputError(
            f"{ckpt_path}: holds the states of an earlier run: pass --resume to continue it, or another "
            "--ckpt_path (or remove its folder resume/)"
        )
    names = list_names(ckpt_path)
    if names and resume and not states:
        raise InputError(
            f"{ckpt_path}: holds checkpoints ({', '.join(names)}) and no state to resume from: continue one with "
            "--load_from_epoch, or give another --ckpt_path"
        )


def how_to_continue(args: argparse.Namespace) -> Callable[[], str]:
    """A function that says, whenever the run ends, how to go on with it."""
    states_before = state_folders(args.ckpt_path)

    def advice() -> str:
        states = state_folders(args.ckpt_path)
        if args.eval_only or not states or (states == states_before and not args.resume):
            return "no state was written: give the same command again"
        instead = " instead of --load_from_epoch" if args.load_from_epoch else ""
        epoch, step = map(int, states[0].name.split("-"))
        return f"continue with --resume{instead} (state of epoch {epoch}, step {step})"

    return advice


# ---- the state of a run ----------------------------------------------------------------------------------------------


def save_run(run: TrainingRun) -> None:
    """Write a state that --resume continues exactly; the weights of a fixed image encoder are left out."""
    if run.accelerator.is_main_process:
        weights = run.model.state_dict()
        if run.args.fixed_encoder:
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith("image_encoder.")}
        scaler = run.accelerator.scaler
        state = {
            "model": weights,
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "progress": asdict(run.progress),
        }
        save_state(run.args.ckpt_path, run.progress.epoch, run.progress.step, state, run.settings)
    run.accelerator.wait_for_everyone()


def start_or_continue(run: TrainingRun) -> None:
    """Start a run from a state (--resume), from a checkpoint (--load_from_epoch) or from scratch; its log says which.

    Raises:
        InputError: the run cannot continue from there.
    """
    start = dict(run.settings)
    if run.args.resume:
        start["resumed"] = resume(run)
    elif run.checkpoint is not None:
        continue_from(run, run.checkpoint)
        start["continued"] = {"from": run.args.load_from_epoch, "epoch": run.progress.epoch}
    if run.accelerator.is_main_process:
        run.log.write("start", start)


def resume(run: TrainingRun) -> str | None:
    """Continue from the newest undamaged state; returns its folder's name, or None if the run had not written any.

    Raises:
        InputError: flags or files differ in a way that makes another training, or every state is damaged.
    """
    found, notes = load_state(run.args.ckpt_path)
    if found is None:
        run.print(f"{run.args.ckpt_path}: no state to resume from yet: starting from scratch")
        return None
    for note in notes + compare_for_resume(found.settings, run.settings):
        run.print(note)
    state = found.state
    run.model.load_state_dict(state["model"], strict=not run.args.fixed_encoder)
    run.optimizer.load_state_dict(state["optimizer"])
    run.scheduler.load_state_dict(state["scheduler"])
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.progress = Progress(**state["progress"])
    run.print(f"resumed at epoch {run.progress.epoch}, step {run.progress.step}")
    return found.folder.name


def continue_from(run: TrainingRun, checkpoint: NamedCheckpoint) -> None:
    """Continue at the epoch after a checkpoint's, with its optimiser state if the parameters match; writes a first state.

    Learning rates and AdamW's epsilon are those of the flags, whose defaults are the checkpoint's own.

    Raises:
        InputError: --num_train_epochs leaves no epoch to train.
    """
    args, stats = run.args, checkpoint.stats
    epoch = run.progress.epoch = int(stats.get("epoch", -1)) + 1
    if epoch >= args.num_train_epochs:
        raise InputError(
            f"{checkpoint.folder}: is of epoch {epoch - 1}, the last of --num_train_epochs {args.num_train_epochs}; give "
            "more epochs to continue"
        )
    run.progress.best_acc = float(stats.get("best_acc", -1.0))
    run.progress.best_res = float(stats.get("best_res", -1.0))
    run.progress.updates = run.updates_before(epoch, 0)
    rates = [group["initial_lr"] for group in run.optimizer.param_groups]
    if stats.get("parameter_names") == run.parameter_names:
        run.optimizer.load_state_dict(stats["optimizer_state_dict"])
        run.scheduler.load_state_dict(stats["scheduler"])
    else:
        of = "of other parameters" if "parameter_names" in stats else "without the names of its parameters"
        run.print(f"{checkpoint.folder}: its optimiser state is {of}: AdamW starts from scratch")
    set_schedule(run.scheduler, rates, args.adam_eps, run.progress.updates)
    run.print(
        f"continuing at epoch {epoch} of {args.num_train_epochs}, with --learning_rate {args.learning_rate:g}, "
        f"--en_LR {args.en_LR:g}, --emo_en_LR {args.emo_en_LR:g}, which fall to 0 over all epochs"
    )
    if run.accelerator.is_main_process and state_folders(args.ckpt_path):
        folder = args.ckpt_path / STATES_FOLDER
        numbered = (folder.with_name(f"{STATES_FOLDER}-{number}") for number in itertools.count(1))
        renamed = next(path for path in numbered if not path.exists())
        os.replace(folder, renamed)
        run.print(f"the states of the earlier run in this folder are now in {renamed}")
    save_run(run)
