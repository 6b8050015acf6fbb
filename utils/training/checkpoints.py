"""Named checkpoints in the published layout, written whole or not at all; and the disk that a run needs for its files.

    <ckpt_path>/nle_model_<name>/           config.json, model.safetensors, manifest.json
    <ckpt_path>/nle_gpt2_tokenizer_0/       the tokenizer with its added tokens
    <ckpt_path>/ckpt_stats_<name>.tar       a torch.save file despite its name: VAD encoder, trained image encoder, optimiser ...

<name> is best-acc, best-res or a number. The folder and the stats file cannot be renamed in one step: the stats are written
into the new folder, renamed together with it, and then moved beside it. Until then they are read from the folder.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.sevlm import SEVLM
from utils.data.image_encoder_weights import load_trained_weights, trained_state_dict
from utils.data.pretrained import check_finite, read_config
from utils.data.untrusted_files import read_state_dict, read_torch_file
from utils.errors import InputError
from utils.files import MANIFEST, atomic_path, damaged_file, finish_renames, present, sync, write_manifest
from utils.layout import BEST, STATES_FOLDER, TOKENIZER_FOLDER, list_names, model_folder, stats_name
from utils.training.optimizer import count_parameters

KEPT_STATES = 2  # see utils/training/resume.py
ADAMW_BYTES = 2 * 4  # for each trained parameter: two moments in float32
# causal masks that GPT-2's older code kept in the state dict: constants
MASK_BUFFER = re.compile(r"\.(attn|crossattention)\.(bias|masked_bias)$")


@dataclass
class NamedCheckpoint:
    """A checkpoint in the published layout, this program's or the authors'.

    config: its config.json. decoder: the decoder's state dict. stats: epoch, best_acc, best_res and, where present,
    emo_encoder_state_dict (VAD encoder), encoder_state_dict (trained image encoder, names prefixed `encoder.`; CLIP's are
    OpenAI's), emotion_head_state_dict, optimizer_state_dict, scheduler.
    """

    folder: Path
    config: dict[str, Any]
    decoder: dict[str, Tensor]
    stats: dict[str, Any] = field(default_factory=dict)

    def restore(self, model: SEVLM) -> list[str]:
        """Load every part into `model`; returns notes on what the checkpoint holds and the model does not use.

        Raises:
            InputError: weights that the model needs are missing, have another shape or are not finite.
        """
        decoder = {name: tensor for name, tensor in self.decoder.items() if not MASK_BUFFER.search(name)}
        if "transformer.wte.weight" in decoder:
            decoder.setdefault("lm_head.weight", decoder["transformer.wte.weight"])
        notes = _load_part(model.decoder, decoder, f"{self.folder}: decoder")
        for part, key, flag in (
            (model.vad_encoder, "emo_encoder_state_dict", "--no-use_VAD"),
            (model.emotion_head, "emotion_head_state_dict", "--no-use_emotion_loss"),
        ):
            state = self.stats.get(key)
            if part is not None and state is None:
                raise InputError(
                    f"{self.folder}: the checkpoint holds no {key}; it was trained without this part: give {flag}"
                )
            if part is not None:
                notes += _load_part(part, state, f"{self.folder}: {key}")
            elif state is not None:
                notes.append(f"{self.folder}: {key} is not used with these flags")
        state = self.stats.get("encoder_state_dict")
        if state is not None:
            state = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
            load_trained_weights(model.image_encoder.vision, state, f"{self.folder}: encoder_state_dict")
        return notes


def _load_part(module: torch.nn.Module, state: dict[str, Tensor], source: str) -> list[str]:
    weights = module.state_dict()
    missing = sorted(set(weights) - set(state))
    if missing:
        raise InputError(f"{source}: weights missing: {', '.join(missing[:6])} ({len(missing)} in all)")
    misshapen = [name for name in weights if weights[name].shape != state[name].shape]
    if misshapen:
        name = misshapen[0]
        shapes = f"{tuple(state[name].shape)} in the file, {tuple(weights[name].shape)} in the model"
        raise InputError(f"{source}: weights of another shape: {name} ({shapes}; {len(misshapen)} in all)")
    module.load_state_dict({name: state[name] for name in weights})
    check_finite(module, source, "use another checkpoint")
    unused = sorted(set(state) - set(weights))
    return [f"{source}: not used: {', '.join(unused)}"] if unused else []


def _paths(ckpt_path: Path, name: str) -> tuple[Path, Path]:
    """A checkpoint's folder and its stats file, wherever a kill left them."""
    folder, stats_file = present(model_folder(ckpt_path, name)), stats_name(name)
    return folder, (folder if (folder / stats_file).is_file() else ckpt_path) / stats_file


def _tokenizer_files(ckpt_path: Path) -> dict[str, Path]:
    """The tokenizer's files by their names in a checkpoint's manifest."""
    return {f"{TOKENIZER_FOLDER}/{path.name}": path for path in sorted((ckpt_path / TOKENIZER_FOLDER).glob("*"))}


def load_named(ckpt_path: str | Path, name: str) -> NamedCheckpoint:
    """Read checkpoint `name` (best-acc, best-res, an epoch), verified against its manifest; the authors' have none.

    Raises:
        InputError: no such checkpoint (the message lists the others), or a truncated or modified file.
    """
    ckpt_path = Path(ckpt_path)
    folder, stats_file = _paths(ckpt_path, name)
    weights = [folder / "model.safetensors", folder / "pytorch_model.bin"]
    found = [path for path in weights if path.is_file()]
    if not found or not stats_file.is_file():
        names = ", ".join(list_names(ckpt_path)) or "none"
        missing = stats_file if found else weights[0]
        raise InputError(f"{ckpt_path}: no checkpoint {name!r}: {missing} is missing (checkpoints here: {names})")
    if (folder / MANIFEST).exists():
        damaged = damaged_file(folder, {stats_file.name: stats_file} | _tokenizer_files(ckpt_path))
        if damaged is not None:
            raise InputError(
                f"{folder}: truncated or modified ({damaged} differs from its SHA-256); use another checkpoint"
            )
    config = read_config(folder / "config.json")
    decoder = read_state_dict(found[0], "use another checkpoint")
    stats = read_torch_file(stats_file, "use another checkpoint")
    return NamedCheckpoint(folder, config, decoder, stats)


def save_named(
    ckpt_path: Path,
    name: str,
    model: SEVLM,
    tokenizer: PreTrainedTokenizerFast,
    config: dict[str, Any],
    stats: dict[str, Any],
) -> None:
    """Write checkpoint `name` in the published layout; the one it replaces stays until the new one is complete.

    Args:
        config: fields for config.json beyond the decoder's own.
        stats: what ckpt_stats_<name>.tar holds beside the VAD encoder, the emotion head and a trained image encoder.
    """
    if not (ckpt_path / TOKENIZER_FOLDER).exists():  # it never changes during a run
        with atomic_path(ckpt_path / TOKENIZER_FOLDER, folder=True) as folder:
            tokenizer.save_pretrained(folder)
    stats = dict(stats)
    if model.vad_encoder is not None:
        stats["emo_encoder_state_dict"] = model.vad_encoder.state_dict()
    if model.emotion_head is not None:
        stats["emotion_head_state_dict"] = model.emotion_head.state_dict()
    if model.image_encoder is not None and not model.image_encoder.fixed:
        encoder = trained_state_dict(model.image_encoder.vision)
        stats["encoder_state_dict"] = {f"encoder.{key}": tensor for key, tensor in encoder.items()}
    state = model.decoder.state_dict()
    del state["lm_head.weight"]  # tied: safetensors files hold a tensor once
    state = {key: tensor.contiguous() for key, tensor in state.items()}
    settings = asdict(model.config) | {"prefix_size": model.config.encoder_dim}  # its name in published files
    fields = model.decoder.config.to_dict() | settings | config
    with atomic_path(model_folder(ckpt_path, name), folder=True) as folder:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors leaves it at 0600
        torch.save(stats, folder / stats_name(name))
        write_manifest(folder, _tokenizer_files(ckpt_path))
    _move_stats(ckpt_path, name)


def _move_stats(ckpt_path: Path, name: str) -> None:
    _, stats_file = _paths(ckpt_path, name)
    if stats_file.parent != ckpt_path:
        os.replace(stats_file, ckpt_path / stats_file.name)
        sync(ckpt_path)


def finish_saves(ckpt_path: Path) -> None:
    """Complete every checkpoint that a kill left between two renames; before a run writes more."""
    finish_renames(ckpt_path)
    for name in list_names(ckpt_path):
        _move_stats(ckpt_path, name)


# ---- the disk that a run needs ---------------------------------------------------------------------------------------


def state_size(model: SEVLM) -> int:
    """Bytes of a state, and about those of a named checkpoint: AdamW's moments, and the weights but a fixed image encoder's."""
    fixed = model.image_encoder is not None and model.image_encoder.fixed
    saved = [tensor for name, tensor in model.state_dict().items() if not (fixed and name.startswith("image_encoder."))]
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in saved}  # a file holds shared weights once
    return sum(sizes.values()) + ADAMW_BYTES * count_parameters(model)


def check_disk(model: SEVLM, ckpt_path: Path, resume: bool) -> str:
    """Check that the disk has room for a run's states and named checkpoints, and for one more while it replaces another.

    Args:
        resume: the run continues the one before and replaces its states; else those stay.

    Returns:
        a line for the log.

    Raises:
        InputError: the disk has too little room.
    """
    size = state_size(model)
    replaced = [path for name in BEST for path in (model_folder(ckpt_path, name), ckpt_path / stats_name(name))]
    replaced += [ckpt_path / STATES_FOLDER] * resume
    used = sum(file.stat().st_size for path in replaced for file in (path, *path.rglob("*")) if file.is_file())
    total = (KEPT_STATES + len(BEST) + 1) * size
    free = shutil.disk_usage(ckpt_path).free
    line = (
        f"disk: up to {format_size(total)} in {ckpt_path} for {KEPT_STATES} states, {len(BEST)} checkpoints and one being "
        f"written, {format_size(size)} each"
    ) + (f"; {format_size(used)} of it are in use already" if used else "")
    if total - used > free:
        raise InputError(f"{line}; only {format_size(free)} are free; free some space, or give another --ckpt_path")
    return f"{line}; {format_size(free)} are free"


def format_size(size: int) -> str:
    """A number of bytes, as MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
