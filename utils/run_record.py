"""The record of a run, and what a run may change against it.

A checkpoint and a resume state carry the record of their run: {"flags": every flag's value, "fingerprints": the fingerprints of
what some flags stand for (hashes of files and weights, images per step, ...)}. The flags' rules stand where they are
declared (utils/opts.py). No torch here: the record of a checkpoint is read before anything heavy starts.
"""

import argparse
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.flags import IGNORE, MUST_MATCH
from utils.opts import declared

RECORD_KEY = "sevlm_settings"  # of a checkpoint's config.json
# Fingerprints that no flag stands for: another number of images is another training, one of processes is warned of.
IMAGES, PROCESSES = "images", "processes"


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Every flag's value, as JSON holds it."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name in declared()
    }


def found_by_path(flag: argparse.Action) -> bool:
    """Whether a flag names a file that a checkpoint records by its hash only: where it lies is for each run to say."""
    return flag.fingerprint is not None and flag.type is Path


def compare_for_resume(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each change that a resumed run may make and that is said.

    Args:
        recorded, now: records of the run that was stopped, and of this one.

    Raises:
        InputError: a change that makes another training; names the flag and both values.
    """
    notes = []
    for name, flag in declared().items():
        if flag.rules.resume == IGNORE:
            continue
        before, after = _value(recorded, name), _value(now, name)
        if before == after:
            continue
        if flag.rules.resume == MUST_MATCH:
            raise InputError(f"--resume: {_change(name, before, after)}: that is another training; {_remedy(name)}")
        notes.append(f"--resume: {_change(name, before, after)}")
    before, after = recorded["fingerprints"].get(IMAGES), now["fingerprints"].get(IMAGES)
    if before != after:
        raise InputError(
            f"--resume: the training had {before} images and has {after} now; give the same files as before"
        )
    before, after = recorded["fingerprints"].get(PROCESSES), now["fingerprints"].get(PROCESSES)
    if before != after:
        notes.append(
            f"--resume: {before} processes were at work before and {after} are now: contrastive negatives differ"
        )
    return notes


def _value(record: dict[str, Any], name: str) -> Any:
    fingerprint = declared()[name].fingerprint
    value = record["fingerprints"].get(fingerprint) if fingerprint else record["flags"].get(name)
    return sorted(value) if isinstance(value, list) else value  # the order of --metrics means nothing


def _change(name: str, before: Any, after: Any) -> str:
    fingerprint = declared()[name].fingerprint
    what = f"--{name}" + (f" ({fingerprint.replace('_', ' ')})" if fingerprint else "")
    return f"{what} was {_shown(before)} and is {_shown(after)} now"


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]  # a hash, or anything else


def _remedy(name: str) -> str:
    if name == "num_train_epochs":
        return "--load_from_epoch NAME continues a checkpoint for more epochs, with a schedule of its own"
    if name == "batch_size":
        return "give a --batch_size that makes the same images per step with this number of processes"
    return "give the same as before, or continue a checkpoint with --load_from_epoch"


def recorded_argv(record: dict[str, Any], score: bool, source: Path) -> list[str]:
    """The flags that a checkpoint brings along as defaults, spelled as on a command line so that the parser checks them.

    Args:
        score: for --eval_only; else for continuing the training.

    Raises:
        InputError: the record is damaged.
    """
    flags = record.get("flags") if isinstance(record, dict) else None
    if not isinstance(flags, dict) or not isinstance(record.get("fingerprints"), dict):
        raise InputError(f"{source}: its settings are damaged; take another checkpoint")
    argv = []
    for name, flag in declared().items():
        rule = flag.rules.score if score else flag.rules.continue_from
        value = record["fingerprints"].get("precision") if name == "mixed_precision" else flags.get(name)
        if rule == IGNORE or value is None or found_by_path(flag):
            continue
        if isinstance(value, list):
            if any(str(part).startswith("-") for part in value):  # would be read as a flag of its own
                raise InputError(f"{source}: its settings are damaged (--{name}); take another checkpoint")
            argv += [f"--{name}", *(str(part) for part in value)]
        else:
            argv.append(f"--{name}={value}")
    return argv


def compare_flags(record: dict[str, Any], args: argparse.Namespace, score: bool, source: Path) -> list[str]:
    """What a run's flags say otherwise than a checkpoint's record: one line for each flag that may differ.

    Raises:
        InputError: a flag contradicts what the model was trained with; names it and both values.
    """
    notes = []
    flags, before = flags_of(args), record["flags"]
    for name, flag in declared().items():
        rule = flag.rules.score if score else flag.rules.continue_from
        recorded, value = before.get(name), flags[name]
        if rule == IGNORE or flag.fingerprint or recorded == value:
            continue
        change = f"{source}: --{name} was {_shown(recorded)} in training and is {_shown(value)} now"
        if rule == MUST_MATCH:
            raise InputError(f"{change}; leave the flag out: the checkpoint brings its own")
        notes.append(change)
    return notes


def compare_fingerprints(record: dict[str, Any], fingerprints: dict[str, Any], score: bool, source: Path) -> list[str]:
    """As `compare_flags`, for the flags that are compared by their fingerprints; `fingerprints` may lack some."""
    notes = []
    for name, flag in declared().items():
        rule = flag.rules.score if score else flag.rules.continue_from
        before, after = record["fingerprints"].get(flag.fingerprint), fingerprints.get(flag.fingerprint)
        if rule == IGNORE or flag.fingerprint not in fingerprints or before == after:
            continue
        change = f"{source}: {_change(name, before, after)}"
        if rule == MUST_MATCH:
            raise InputError(f"{change}: not what the model was trained with; give what it was trained with")
        notes.append(change)
    return notes
