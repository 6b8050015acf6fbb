"""Checkpoints: the published layout for use, and a folder of exact states to resume from. Whole or absent, and verified.

    <ckpt_path>/nle_model_<name>/           config.json, model.safetensors, manifest.json
    <ckpt_path>/nle_gpt2_tokenizer_0/       the tokenizer with its added tokens
    <ckpt_path>/ckpt_stats_<name>.tar       a torch.save file despite its name: VAD encoder, trained image encoder, optimiser ...
    <ckpt_path>/resume/<epoch>-<step>/      state.pt, manifest.json: everything an exact continuation needs

<name> is best-acc, best-res or a number. Nothing here is unpickled freely: utils/data/torch_files.py reads all that torch.save wrote.
"""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.sevlm import SEVLM
from utils.data.image_encoder_weights import load_openai_weights, openai_state_dict
from utils.data.pretrained import read_config
from utils.data.torch_files import read_torch_file
from utils.errors import InputError
from utils.files import read_json, sha256, sync

TOKENIZER_FOLDER = "nle_gpt2_tokenizer_0"
MANIFEST = "manifest.json"
KEPT_STATES = 2
DISK_RESERVE = 1 << 20  # bytes; a write that failed with less than this left failed for want of space
LAST_EPOCH = 100_000
# causal masks that GPT-2's older code kept in the state dict: constants
MASK_BUFFER = re.compile(r"\.(attn|crossattention)\.(bias|masked_bias)$")


@dataclass
class NamedCheckpoint:
    """A checkpoint in the published layout, ours or the authors'.

    stats holds epoch, best_acc, best_res and, where present, emo_encoder_state_dict (VAD encoder), encoder_state_dict
    (trained image encoder, OpenAI's names prefixed `encoder.`), emotion_head_state_dict, optimizer_state_dict, scheduler.
    """

    folder: Path
    config: dict[str, Any]
    decoder: dict[str, Tensor]
    stats: dict[str, Any] = field(default_factory=dict)

    def restore(self, model: SEVLM) -> list[str]:
        """Load every part into `model`; returns notes on what the checkpoint holds and the model does not use.

        Raises:
            InputError: weights the model needs are missing, or have another shape.
        """
        notes = []
        decoder = {name: tensor for name, tensor in self.decoder.items() if not MASK_BUFFER.search(name)}
        if "transformer.wte.weight" in decoder:
            decoder.setdefault("lm_head.weight", decoder["transformer.wte.weight"])
        notes += _load_part(model.decoder, decoder, f"{self.folder}: decoder")
        for part, key in (
            (model.vad_encoder, "emo_encoder_state_dict"),
            (model.emotion_head, "emotion_head_state_dict"),
        ):
            state = self.stats.get(key)
            if part is not None and state is None:
                raise InputError(
                    f"{self.folder}: the checkpoint holds no {key}; it was trained without this part: "
                    f"give {'--no-use_VAD' if part is model.vad_encoder else '--no-use_emotion_loss'}"
                )
            if part is not None:
                notes += _load_part(part, state, f"{self.folder}: {key}")
            elif state is not None:
                notes.append(f"{self.folder}: {key} is not used by these flags")
        state = self.stats.get("encoder_state_dict")
        if state is not None and model.image_encoder is None:
            raise InputError(f"{self.folder}: holds a trained image encoder: cached features of another do not fit it")
        if state is not None:
            bare = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
            load_openai_weights(model.image_encoder.vision, bare, f"{self.folder}: encoder_state_dict")
        return notes


def _load_part(module: torch.nn.Module, state: dict[str, Tensor], source: str) -> list[str]:
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    misshapen = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing:
        raise InputError(f"{source}: weights missing: {', '.join(missing[:6])} ({len(missing)} in all)")
    if misshapen:
        name = misshapen[0]
        shapes = f"{tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        raise InputError(f"{source}: weights of another shape: {name} ({shapes}; {len(misshapen)} in all)")
    module.load_state_dict({name: state[name] for name in own})
    left_over = sorted(set(state) - set(own))
    return [f"{source}: not used: {', '.join(left_over)}"] if left_over else []


def list_names(ckpt_path: Path) -> list[str]:
    """Names of the checkpoints in a folder."""
    return sorted(
        folder.name.removeprefix("nle_model_") for folder in Path(ckpt_path).glob("nle_model_*") if folder.is_dir()
    )


def load_named(ckpt_path: Path, name: str) -> NamedCheckpoint:
    """Read checkpoint `name` (best-acc, best-res, an epoch), ours (verified against its manifest) or the authors'.

    Raises:
        InputError: no such checkpoint (naming those there are), or a torn or altered file.
    """
    ckpt_path = Path(ckpt_path)
    folder, stats_file = _settle_named(ckpt_path, name)
    weights = [folder / "model.safetensors", folder / "pytorch_model.bin"]
    present = [path for path in weights if path.is_file()]
    if not present or not stats_file.is_file():
        there = ", ".join(list_names(ckpt_path)) or "none"
        lacks = f"{folder}/model.safetensors" if not present else stats_file
        raise InputError(f"{ckpt_path}: no checkpoint {name!r}: {lacks} is missing (checkpoints here: {there})")
    config = read_config(folder / "config.json")
    if present[0].suffix == ".safetensors":
        try:
            decoder = load_file(present[0])
        except (SafetensorError, OSError) as error:
            raise InputError(f"{present[0]}: torn or altered ({error}); take another checkpoint") from None
    else:
        decoder = read_torch_file(present[0])
    stats = read_torch_file(stats_file)
    for part, path in ((decoder, present[0]), (stats, stats_file)):
        if not isinstance(part, dict):
            raise InputError(f"{path}: a dictionary was expected; take another checkpoint")
    _check_tensors(decoder, f"{present[0]}")
    _check_stats(stats, stats_file)
    return NamedCheckpoint(folder, config, decoder, stats)


def _check_tensors(state: Any, source: str) -> None:
    if not isinstance(state, dict):
        raise InputError(f"{source}: a dictionary of tensors was expected; take another checkpoint")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            shown = name[:80] if isinstance(name, str) else "an entry"
            raise InputError(f"{source}: {shown} is no named tensor; take another checkpoint")


def _check_stats(stats: dict[str, Any], path: Path) -> None:
    epoch = stats.get("epoch", 0)
    if not isinstance(epoch, int) or not 0 <= epoch < LAST_EPOCH:
        raise InputError(f"{path}: epoch is not an integer from 0 to {LAST_EPOCH}; take another checkpoint")
    for name in ("best_acc", "best_res"):
        score = stats.get(name, 0.0)
        if not isinstance(score, int | float) or not abs(score) < 1e6:  # nor NaN
            raise InputError(f"{path}: {name} is no score; take another checkpoint")
    for name in ("emo_encoder_state_dict", "emotion_head_state_dict", "encoder_state_dict"):
        _check_tensors(stats.get(name, {}), f"{path}: {name}")


def save_named(
    ckpt_path: Path,
    name: str,
    model: SEVLM,
    tokenizer: PreTrainedTokenizerFast,
    config: dict[str, Any],
    stats: dict[str, Any],
) -> None:
    """Write checkpoint `name` in the published layout; the one it replaces stays until the new one is verified.

    Args:
        config: fields for config.json beyond the decoder's own.
        stats: what ckpt_stats_<name>.tar holds beside the VAD encoder, the emotion head and a trained image encoder.
    """
    ckpt_path = Path(ckpt_path)
    _settle_named(ckpt_path, name)
    if not (ckpt_path / TOKENIZER_FOLDER / "tokenizer_config.json").is_file():
        temporary = ckpt_path / f".{TOKENIZER_FOLDER}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        tokenizer.save_pretrained(temporary)
        shutil.rmtree(ckpt_path / TOKENIZER_FOLDER, ignore_errors=True)
        _sync_folder(temporary)
        os.replace(temporary, ckpt_path / TOKENIZER_FOLDER)
    stats = dict(stats)
    if model.vad_encoder is not None:
        stats["emo_encoder_state_dict"] = model.vad_encoder.state_dict()
    if model.emotion_head is not None:
        stats["emotion_head_state_dict"] = model.emotion_head.state_dict()
    if model.image_encoder is not None and not model.image_encoder.fixed:
        encoder = openai_state_dict(model.image_encoder.vision)
        stats["encoder_state_dict"] = {f"encoder.{key}": tensor for key, tensor in encoder.items()}

    folder, stats_file = _named_paths(ckpt_path, name, ".new")
    folder.mkdir(parents=True)
    with _removed_on_failure(folder, stats_file):
        state = model.decoder.state_dict()
        del state["lm_head.weight"]  # tied: safetensors files hold a tensor once
        save_file(
            {key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"}
        )
        fields = model.decoder.config.to_dict() | config
        (folder / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        torch.save(stats, stats_file)
        _write_manifest(folder, [folder / "config.json", folder / "model.safetensors", stats_file])
        sync(stats_file)
        sync(ckpt_path)
        if not _verified(folder, stats_file):
            raise OSError(f"{folder}: what was written does not read back as written; check the disk")
    _settle_named(ckpt_path, name)


def _named_paths(ckpt_path: Path, name: str, suffix: str = "") -> tuple[Path, Path]:
    return ckpt_path / f"nle_model_{name}{suffix}", ckpt_path / f"ckpt_stats_{name}.tar{suffix}"


def _settle_named(ckpt_path: Path, name: str) -> tuple[Path, Path]:
    """Bring a checkpoint whose replacement was cut short to its newest whole state, and give its two paths.

    A replacement is written as *.new; then the old one is moved to *.old, the new one takes its place, and the old one
    goes. A kill leaves any mixture of these; manifests say which folder belongs to which stats file.
    """
    target, target_stats = _named_paths(ckpt_path, name)
    fresh, fresh_stats = _named_paths(ckpt_path, name, ".new")
    old, old_stats = _named_paths(ckpt_path, name, ".old")
    if not any(path.exists() for path in (fresh, fresh_stats, old, old_stats)):
        if (target / MANIFEST).is_file() and not _verified(target, target_stats):
            raise InputError(f"{target}: torn or altered (its manifest does not match); take another checkpoint")
        return target, target_stats
    folders, stats_files = (fresh, target, old), (fresh_stats, target_stats, old_stats)
    for folder in folders:
        for stats_file in stats_files:
            if not _verified(folder, stats_file):
                continue
            if folder != target:
                if target.exists():
                    _remove(old)
                    os.replace(target, old)
                os.replace(folder, target)
            if stats_file != target_stats:
                os.replace(stats_file, target_stats)
            sync(ckpt_path)
            for leftover in (fresh, fresh_stats, old, old_stats):
                _remove(leftover)
            return target, target_stats
    if (target / MANIFEST).is_file():
        raise InputError(f"{target}: torn or altered, and so are its neighbours; take another checkpoint")
    for leftover in (fresh, fresh_stats):  # a first write that was cut short, beside nothing or the authors' own
        _remove(leftover)
    return target, target_stats


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_manifest(folder: Path, files: list[Path]) -> None:
    names = {path.name.removesuffix(".new"): sha256(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps({"sha256": names}, indent=1) + "\n", encoding="utf-8")
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def _verified(folder: Path, stats_file: Path | None = None) -> bool:
    """Whether a folder (and the stats file beside it) is byte for byte what its manifest says."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        expected = read_json(folder / MANIFEST)["sha256"]
        for name, digest in expected.items():
            beside = stats_file is not None and name.startswith("ckpt_stats_")
            path = stats_file if beside else folder / name
            if not path.is_file() or sha256(path) != digest:
                return False
    except (InputError, KeyError, TypeError, AttributeError):
        return False
    return bool(expected)


# ---- exact states ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _removed_on_failure(folder: Path, *files: Path) -> Iterator[None]:
    """Leave nothing half-written behind, and call a full disk by its name: torch and safetensors have other words for it."""
    try:
        yield
    except BaseException as error:
        full = shutil.disk_usage(folder.parent).free < DISK_RESERVE
        for part in (folder, *files):
            _remove(part)
        if isinstance(error, RuntimeError | SafetensorError) and full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        raise


def save_state(ckpt_path: Path, epoch: int, step: int, state: dict[str, Any]) -> None:
    """Write `resume/<epoch>-<step>/` (renamed into place when whole and verified) and drop all but the newest two."""
    root = Path(ckpt_path) / "resume"
    target, temporary = root / f"{epoch:05d}-{step:08d}", root / ".writing"
    _remove(temporary)
    temporary.mkdir(parents=True)
    with _removed_on_failure(temporary):
        torch.save(state, temporary / "state.pt")
        _write_manifest(temporary, [temporary / "state.pt"])
        if not _verified(temporary):
            raise OSError(f"{temporary}: what was written does not read back as written; check the disk")
    _remove(target)
    os.replace(temporary, target)
    sync(root)
    for superseded in _state_folders(ckpt_path)[KEPT_STATES:]:
        _remove(superseded)


def _state_folders(ckpt_path: Path) -> list[Path]:
    """Folders of exact states, newest first."""
    root = Path(ckpt_path) / "resume"
    return sorted((folder for folder in root.glob("*-*") if folder.is_dir()), reverse=True) if root.is_dir() else []


def load_state(ckpt_path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole state, or None when there is none; and a note for every damaged one that was passed over.

    Raises:
        InputError: there are states, and all are damaged.
    """
    notes = []
    for folder in _state_folders(ckpt_path):
        if _verified(folder):
            return read_torch_file(folder / "state.pt"), notes
        notes.append(f"{folder}: torn or altered (its manifest does not match); the state before it is used")
    if notes:
        raise InputError(f"{Path(ckpt_path) / 'resume'}: every state is torn or altered; start anew without --resume")
    return None, notes


def has_states(ckpt_path: Path) -> bool:
    """Whether a run has left states to resume from."""
    return bool(_state_folders(ckpt_path))
