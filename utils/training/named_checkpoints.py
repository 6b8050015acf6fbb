"""Named checkpoints in the published layout: whole or absent, and verified.

    <ckpt_path>/nle_model_<name>/           config.json, model.safetensors, manifest.json
    <ckpt_path>/nle_gpt2_tokenizer_0/       the tokenizer with its added tokens
    <ckpt_path>/ckpt_stats_<name>.tar       a torch.save file despite its name: VAD encoder, trained image encoder, optimiser ...

<name> is best-acc, best-res or a number. Nothing here is unpickled freely, see utils/data/torch_files.py.

A checkpoint has two halves, folder and stats file, that cannot be renamed at once. Each carries the generation, a random
id of the writing, so that halves that belong together are told from others without hashing gigabytes.
"""

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.sevlm import SEVLM
from utils.data.image_encoder_weights import load_trained_weights, trained_state_dict
from utils.data.pretrained import check_finite, read_config
from utils.data.torch_files import read_torch_file
from utils.errors import InputError, brief, escaped
from utils.files import sync
from utils.training.manifests import (
    MANIFEST,
    damaged_file,
    read_manifest,
    remove,
    removed_on_failure,
    set_aside,
    write_manifest,
)

TOKENIZER_FOLDER = "nle_gpt2_tokenizer_0"
GENERATION = "generation"
LAST_EPOCH = 100_000
# causal masks that GPT-2's older code kept in the state dict: constants
MASK_BUFFER = re.compile(r"\.(attn|crossattention)\.(bias|masked_bias)$")


@dataclass
class NamedCheckpoint:
    """A checkpoint in the published layout, ours or the authors'.

    stats holds epoch, best_acc, best_res and, where present, emo_encoder_state_dict (VAD encoder), encoder_state_dict
    (trained image encoder, names prefixed `encoder.`; CLIP's are OpenAI's), emotion_head_state_dict, optimizer_state_dict, scheduler.
    """

    folder: Path
    config: dict[str, Any]
    decoder: dict[str, Tensor]
    stats: dict[str, Any] = field(default_factory=dict)

    def restore(self, model: SEVLM) -> list[str]:
        """Load every part into `model`; returns notes on what the checkpoint holds and the model does not use.

        Raises:
            InputError: weights the model needs are missing, have another shape or are not finite.
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
            load_trained_weights(model.image_encoder.vision, bare, f"{self.folder}: encoder_state_dict")
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
    check_finite(module, source, "take another checkpoint")
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
    finish_replacement(ckpt_path, name)
    folder, stats_file = _paths(ckpt_path, name)
    weights = [folder / "model.safetensors", folder / "pytorch_model.bin"]
    present = [path for path in weights if path.is_file()]
    if not present or not stats_file.is_file():
        there = ", ".join(list_names(ckpt_path)) or "none"
        lacks = f"{folder}/model.safetensors" if not present else stats_file
        raise InputError(f"{ckpt_path}: no checkpoint {name!r}: {lacks} is missing (checkpoints here: {there})")
    if (folder / MANIFEST).exists():  # the authors' checkpoints have none
        damaged = damaged_file(folder, _files_beside(ckpt_path, name))
        if damaged is not None:
            raise InputError(
                f"{folder}: torn or altered ({damaged} is not as its manifest says); take another checkpoint"
            )
    config = read_config(folder / "config.json")
    if present[0].suffix == ".safetensors":
        try:
            decoder = load_file(present[0])
        except (SafetensorError, OSError) as error:
            raise InputError(f"{present[0]}: torn or altered ({brief(error)}); take another checkpoint") from None
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
    finish_replacement(ckpt_path, name)
    save_tokenizer(ckpt_path, tokenizer)
    generation = secrets.token_hex(16)
    stats = stats | {GENERATION: generation}
    if model.vad_encoder is not None:
        stats["emo_encoder_state_dict"] = model.vad_encoder.state_dict()
    if model.emotion_head is not None:
        stats["emotion_head_state_dict"] = model.emotion_head.state_dict()
    if model.image_encoder is not None and not model.image_encoder.fixed:
        encoder = trained_state_dict(model.image_encoder.vision)
        stats["encoder_state_dict"] = {f"encoder.{key}": tensor for key, tensor in encoder.items()}

    folder, stats_file = _paths(ckpt_path, name, ".new")
    for leftover in (folder, stats_file):
        remove(leftover)
    folder.mkdir(parents=True)
    with removed_on_failure(folder, stats_file):
        state = model.decoder.state_dict()
        del state["lm_head.weight"]  # tied: safetensors files hold a tensor once
        save_file(
            {key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"}
        )
        fields = model.decoder.config.to_dict() | config
        (folder / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors leaves it at 0600
        torch.save(stats, stats_file)
        ours = {part: folder / part for part in ("config.json", "model.safetensors")}
        beside = _files_beside(ckpt_path, name) | {f"ckpt_stats_{name}.tar": stats_file}
        write_manifest(folder, ours | beside, generation=generation)
        sync(ckpt_path)
        if damaged_file(folder, beside):
            raise OSError(f"{folder}: what was written does not read back as written; check the disk")
    _replace(ckpt_path, name)


def save_tokenizer(ckpt_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tokenizer where it is not there whole. It never changes during a run, so older checkpoints keep theirs."""
    target = ckpt_path / TOKENIZER_FOLDER
    has_words = (target / "tokenizer.json").is_file() or (target / "vocab.json").is_file()
    if has_words and (target / "tokenizer_config.json").is_file():
        return
    temporary = ckpt_path / f".{TOKENIZER_FOLDER}.tmp"
    remove(temporary)
    with removed_on_failure(temporary):
        tokenizer.save_pretrained(temporary)
        for path in temporary.iterdir():
            sync(path)
        sync(temporary)
        _make_room(target)
        os.replace(temporary, target)


def _paths(ckpt_path: Path, name: str, suffix: str = "") -> tuple[Path, Path]:
    return ckpt_path / f"nle_model_{name}{suffix}", ckpt_path / f"ckpt_stats_{name}.tar{suffix}"


def _files_beside(ckpt_path: Path, name: str) -> dict[str, Path]:
    """What a checkpoint's manifest names outside its folder: the stats file and the tokenizer's files."""
    tokenizer = sorted(path for path in (ckpt_path / TOKENIZER_FOLDER).glob("*") if path.is_file())
    files = {f"{TOKENIZER_FOLDER}/{path.name}": path for path in tokenizer}
    return files | {f"ckpt_stats_{name}.tar": ckpt_path / f"ckpt_stats_{name}.tar"}


def _replace(ckpt_path: Path, name: str) -> None:
    """Put a whole new checkpoint (*.new) in place of the old one. `finish_replacement` knows every state in between."""
    (folder, stats_file), (fresh, fresh_stats) = _paths(ckpt_path, name), _paths(ckpt_path, name, ".new")
    old, _ = _paths(ckpt_path, name, ".old")
    remove(old)
    if _is_checkpoint(folder):
        os.replace(folder, old)
    else:
        _make_room(folder)
    os.replace(fresh, folder)
    _replace_stats(fresh_stats, stats_file)
    sync(ckpt_path)
    remove(old)


def _replace_stats(fresh: Path, stats_file: Path) -> None:
    if not stats_file.is_file():
        _make_room(stats_file)
    os.replace(fresh, stats_file)


def _is_checkpoint(folder: Path) -> bool:
    """Whether this may be a checkpoint's folder, ours or the authors': the one that the new one replaces."""
    return (folder / "config.json").is_file()


def _make_room(path: Path) -> None:
    """Remove a link (not what it leads to); set aside, and say so, what else somebody keeps under a name of ours."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        aside = set_aside(path)
        print(
            escaped(f"{path}: is no part of a checkpoint, and its name is needed: it is {aside.name} now"), flush=True
        )


def finish_replacement(ckpt_path: Path, name: str) -> None:
    """Bring a checkpoint whose replacement was cut short by a kill to a whole one: the new one where it can be, else the old."""
    (folder, stats_file), (fresh, fresh_stats) = _paths(ckpt_path, name), _paths(ckpt_path, name, ".new")
    old, _ = _paths(ckpt_path, name, ".old")
    if not any(map(os.path.lexists, (fresh, fresh_stats, old))):
        return
    generation = _generation_of_folder(folder)
    if generation is not None and generation == _generation_of_stats(fresh_stats):
        _replace_stats(fresh_stats, stats_file)  # killed between the folder's renaming and the stats file's
    elif not os.path.lexists(folder) and old.is_dir():
        os.replace(old, folder)  # killed between the old folder's moving away and the new one's moving in
    sync(ckpt_path)
    for leftover in (fresh, fresh_stats, old):
        remove(leftover)


def _generation_of_folder(folder: Path) -> str | None:
    manifest = read_manifest(folder)
    return None if manifest is None else manifest.get(GENERATION)


def _generation_of_stats(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        stats = read_torch_file(path)
    except InputError:
        return None
    return stats.get(GENERATION) if isinstance(stats, dict) else None
