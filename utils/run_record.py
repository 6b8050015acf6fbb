"""The record of a run, and what a run may change against it.

A checkpoint and a resume state carry the record of their run: {"flags": every flag's value, "fingerprints": what some flags
stand for (hashes of files and weights, images per step, ...)}. The rules of the flags are part of their declarations
(utils/opts.py). No torch here: the record of a checkpoint is read before anything heavy starts.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import moved, read_json
from utils.flags import IGNORE, MUST_MATCH
from utils.opts import declared

RECORD_KEY = "sevlm_settings"  # of a checkpoint's config.json
# Fingerprints that belong to no flag: another number of images is another training, one of processes is warned of.
IMAGES, PROCESSES = "images", "processes"
# How to go on after a change that a resumed run may not make.
REMEDIES = {
    "num_train_epochs": "--load_from_epoch NAME continues a checkpoint for more epochs, with a schedule of its own",
    "batch_size": "give a --batch_size that makes the same images per step with this number of processes",
}


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Every flag's value, as JSON holds it."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name in declared()
    }


def read_record(config: Path) -> dict[str, Any] | None:
    """The record in a checkpoint's config.json; None if it has none, as in the authors' checkpoints."""
    fields = read_json(config)
    return fields.get(RECORD_KEY) if isinstance(fields, dict) else None


def recorded_lexicon(flags: dict[str, Any], ckpt_path: Path) -> Path | None:
    """The lexicon of a recorded training: where it was, moved along with the checkpoints, or beside them; None where it has gone.

    Args:
        flags: of the record. ckpt_path: the folder of the checkpoints, or of the exported model.
    """
    recorded = flags.get("vad_lexicon")
    if not recorded:
        return None
    places = Path(recorded), moved(recorded, flags.get("ckpt_path", "."), ckpt_path), ckpt_path / Path(recorded).name
    return next((path for path in places if path.is_file()), None)


def found_by_path(flag: argparse.Action) -> bool:
    """Whether a flag names a file that is recorded by its hash only: its place may differ from machine to machine."""
    return flag.fingerprint is not None and flag.type is Path


def compare_for_resume(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each change that a resumed run may make, but not silently.

    Args:
        before, now: records of the run that was stopped, and of this one.

    Raises:
        InputError: a change that makes another training; names the flag and both values.
    """
    notes = []
    for name, rule, what, old, new in _differences(before, now, "resume"):
        change = f"--resume: {what} was {old} and is {new} now"
        if rule == MUST_MATCH:
            remedy = REMEDIES.get(name, "give the same as before, or continue a checkpoint with --load_from_epoch")
            raise InputError(f"{change}: that is another training; {remedy}")
        notes.append(change)
    (images, processes), (images_now, processes_now) = (
        [record["fingerprints"].get(name) for name in (IMAGES, PROCESSES)] for record in (before, now)
    )
    if images != images_now:
        raise InputError(
            f"--resume: the training had {images} images and has {images_now} now; give the same files as before"
        )
    if processes != processes_now:
        notes.append(
            f"--resume: the run had {processes} processes and has {processes_now} now: contrastive negatives differ"
        )
    return notes


def compare_to_checkpoint(record: dict[str, Any], now: dict[str, Any], score: bool, source: Path) -> list[str]:
    """One line for each difference between a run and the record of the checkpoint that it uses.

    Args:
        now: {"flags", "fingerprints"} of the run, or one of them; a fingerprint that it lacks is not compared.
        score: for --eval_only; else for continuing the training.
        source: the checkpoint, for messages.

    Raises:
        InputError: a flag contradicts what the model was trained with; names it and both values.
    """
    notes = []
    for name, rule, what, old, new in _differences(record, now, "score" if score else "continue_from"):
        change = f"{source}: {what} was {old} in training and is {new} now"
        if rule == MUST_MATCH:
            remedy = "give what the model was trained with" if declared()[name].fingerprint else "leave the flag out"
            raise InputError(f"{change}; {remedy}")
        notes.append(change)
    return notes


def _differences(before: dict, now: dict, moment: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, rule, description, recorded and present value of each flag that differs and whose rule is not IGNORE."""
    for name, flag in declared().items():
        rule = getattr(flag.rules, moment)
        part, key = ("fingerprints", flag.fingerprint) if flag.fingerprint else ("flags", name)
        if rule == IGNORE or key not in now.get(part, ()):
            continue
        old, new = before[part].get(key), now[part][key]
        if old == new or isinstance(old, list) and isinstance(new, list) and sorted(old) == sorted(new):  # --metrics
            continue
        what = f"--{name} ({key.replace('_', ' ')})" if flag.fingerprint else f"--{name}"
        yield name, rule, what, _shown(old), _shown(new)


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]  # a hash, or anything else


def recorded_argv(record: dict[str, Any], score: bool, source: Path) -> list[str]:
    """The flags that a checkpoint sets as defaults, spelled as on a command line so that the parser checks them.

    Args:
        score: for --eval_only; else for continuing the training.

    Raises:
        InputError: the record is damaged.
    """
    flags = record.get("flags") if isinstance(record, dict) else None
    if not isinstance(flags, dict) or not isinstance(record.get("fingerprints"), dict):
        raise InputError(f"{source}: its settings are damaged; use another checkpoint")
    argv = []
    for name, flag in declared().items():
        rule = flag.rules.score if score else flag.rules.continue_from
        value = record["fingerprints"].get("precision") if name == "mixed_precision" else flags.get(name)
        if rule == IGNORE or value is None or found_by_path(flag):
            continue
        if isinstance(value, list):
            if any(str(part).startswith("-") for part in value):  # would be read as a flag of its own
                raise InputError(f"{source}: its settings are damaged (--{name}); use another checkpoint")
            argv += [f"--{name}", *(str(part) for part in value)]
        else:
            argv.append(f"--{name}={value}")
    return argv
