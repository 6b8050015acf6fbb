"""Exact states of a run: what `--resume` continues from, bit for bit on a CPU.

    <ckpt_path>/resume/<epoch>-<step>/    state.pt, settings.json, manifest.json

Two are kept. A run that continues a checkpoint (`--load_from_epoch`) sets the states of the run before it aside, whole, in
<ckpt_path>/resume-set-aside-<n>/.
"""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.data.untrusted_files import read_torch_file
from utils.errors import InputError
from utils.files import read_json, sync
from utils.training.manifests import damaged_file, remove, removed_on_failure, set_aside, write_manifest

FOLDER, STATE, SETTINGS = "resume", "state.pt", "settings.json"
KEPT_STATES = 2
OLD = ".old"
_NAME = re.compile(r"(\d{5,9})-(\d{8,12})")


class ResumeState(NamedTuple):
    """A state that was read: its folder, torch's part (model, optimizer, scheduler, scaler, progress), the run's settings."""

    folder: Path
    state: dict[str, Any]
    settings: dict[str, Any]


def save_state(ckpt_path: Path, epoch: int, step: int, state: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write a state (renamed into place when whole and verified) and drop all but the newest two."""
    root = Path(ckpt_path) / FOLDER
    _write(root, epoch, step, state, settings)
    for superseded in state_folders(ckpt_path)[KEPT_STATES:]:
        remove(superseded)


def _write(root: Path, epoch: int, step: int, state: dict[str, Any], settings: dict[str, Any]) -> None:
    target, temporary = root / f"{epoch:05d}-{step:08d}", root / ".writing"
    remove(temporary)
    temporary.mkdir(parents=True)
    with removed_on_failure(temporary):
        torch.save(state, temporary / STATE)
        (temporary / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        write_manifest(temporary, {name: temporary / name for name in (STATE, SETTINGS)})
        if damaged_file(temporary, {}):
            raise OSError(f"{temporary}: what was written does not read back as written; check the disk")
    old = root / f".{target.name}{OLD}"
    remove(old)
    if os.path.lexists(target):  # a run that was resumed here; perhaps this is the only state
        os.replace(target, old)
    os.replace(temporary, target)
    sync(root)
    remove(old)


def finish_renames(ckpt_path: Path) -> None:
    """Bring back the states that a kill between two renames left under another name."""
    root = Path(ckpt_path) / FOLDER
    fresh = root.with_name(f"{FOLDER}.new")
    with contextlib.suppress(FileNotFoundError):  # another process of this run was faster
        if fresh.is_dir() and not os.path.lexists(root):  # of `start_anew`
            os.replace(fresh, root)
        for old in root.glob(f".*{OLD}"):  # of `_write`
            target = root / old.name.removeprefix(".").removesuffix(OLD)
            if not os.path.lexists(target):
                os.replace(old, target)


def start_anew(ckpt_path: Path, epoch: int, step: int, state: dict[str, Any], settings: dict[str, Any]) -> Path | None:
    """Write the first state of a run that continues a checkpoint, and set aside what an earlier run left.

    The new state is written first, beside them: whenever the process dies, the states of one of the two runs are in place.

    Returns:
        where the earlier states are now, or None when there were none.
    """
    root = Path(ckpt_path) / FOLDER
    finish_renames(ckpt_path)
    if not state_folders(ckpt_path):
        save_state(ckpt_path, epoch, step, state, settings)
        return None
    fresh = root.with_name(f"{FOLDER}.new")
    remove(fresh)
    _write(fresh, epoch, step, state, settings)
    aside = set_aside(root)
    os.replace(fresh, root)
    sync(root.parent)
    return aside


def state_folders(ckpt_path: Path) -> list[Path]:
    """Folders of states, newest first."""
    root = Path(ckpt_path) / FOLDER
    if not root.is_dir():
        return []
    named = [(_NAME.fullmatch(folder.name), folder) for folder in root.iterdir() if folder.is_dir()]
    numbered = [(tuple(map(int, match.groups())), folder) for match, folder in named if match]
    return [folder for _, folder in sorted(numbered, reverse=True)]


def load_state(ckpt_path: Path) -> tuple[ResumeState | None, list[str]]:
    """The newest whole state, or None when there is none; and a note for every damaged one that was passed over.

    Raises:
        InputError: there are states, and all are damaged.
    """
    root, notes = Path(ckpt_path) / FOLDER, []
    finish_renames(ckpt_path)
    for folder in state_folders(ckpt_path):
        damaged = damaged_file(folder, {})
        if damaged is None:
            settings = read_json(folder / SETTINGS)
            return ResumeState(folder, read_torch_file(folder / STATE), settings), notes
        notes.append(f"{folder}: torn or altered ({damaged} is not as its manifest says); the state before it is used")
    if notes:
        raise InputError(f"{root}: every state is torn or altered; start anew without --resume, in another --ckpt_path")
    return None, notes
