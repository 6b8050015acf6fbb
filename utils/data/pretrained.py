"""Read configs and weights of downloaded models; damaged, hostile or mismatched files give a one-line error.

We read the files ourselves, config.json by a list of known fields and weights as tensors, and pass the result to
transformers. If transformers read the folder, it would follow instructions in its files: `auto_map` (run Python files
of the folder), an `_attn_implementation` of the form "name/repository" (download compiled code), adapters, quantisers,
etc.
"""

import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import logging

from models.finite_weights import not_finite
from utils.data.torch_files import read_torch_file
from utils.errors import InputError, brief
from utils.files import check_regular, read_json
from utils.hub import fetch_file

MOST_PARAMETERS = 3 * 10**9  # the largest GPT-2 with cross-attention has 2.0e9
MOST_LAYERS = 200
MOST_REGISTERS = 1000
MOST_OTHERWISE = 10**6  # limit of any other size

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def find_file(name: str | Path, file: str) -> Path | None:
    """The path of a file in a model's folder, or of a Hugging Face id (downloaded if need be); None if there is none.

    Raises:
        InputError: there is no such folder, or the file cannot be had from the hub, see `fetch_file`.
    """
    if os.path.isdir(name):
        path = Path(name) / file
        return path if os.path.lexists(path) else None
    return fetch_file(str(name), file)


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json or tokenizer_config.json.

    Raises:
        InputError: the file is not a JSON object, or it asks for code to be run.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path}: a JSON object was expected; take another")
    if "auto_map" in config:
        raise InputError(f"{path}: asks for code of its own to be run (auto_map), which is never done; take another")
    return config


def find_config(name: str, source: str, remedy: str) -> dict[str, Any]:
    """Read the config.json of a folder or Hugging Face id.

    Raises:
        InputError: the file is missing, malformed or cannot be had; the message names `source`.
    """
    try:
        path = find_file(name, "config.json")
        if path is None:
            raise InputError(f"no config.json in this folder; {remedy}")
        return read_config(path)
    except InputError as error:
        raise InputError(f"{source}: {str(error).removeprefix(f'{name}: ')}") from None


def check_model_type(config: dict[str, Any], known: tuple[str, ...], source: str) -> None:
    """Raise InputError if a config.json names a model type other than `known`; one without a model type is accepted."""
    kind = config.get("model_type", known[0])
    if kind not in known:
        raise InputError(f"{source}: is of a {str(kind)[:40]} model; only {' or '.join(known)} is supported here")


def check_sizes(config: PretrainedConfig, fixed: tuple[str, ...], source: str) -> None:
    """Refuse a config with impossible sizes, or with sizes that would fill the memory.

    Args:
        config: the config of a GPT-2, a vision transformer or CLIP's text half.
        fixed: names of the fields that must be positive integers.
        source: name of the config in error messages.

    Raises:
        InputError: a field is wrong; the message names `source` and the field.
    """
    for name in fixed:
        value, most = getattr(config, name, None), MOST_LAYERS if "layer" in name else MOST_OTHERWISE
        if not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(f"{source}: {name} {str(value)[:40]!r} is not an integer from 1 to {most}")
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{source}: width {config.hidden_size} cannot be divided among {config.num_attention_heads} heads"
        )
    inner = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None)
    inner = inner or getattr(config, "mlp_ratio", 4) * config.hidden_size
    if inner < 1:
        raise InputError(f"{source}: n_inner {inner} is no width")
    if hasattr(config, "patch_size"):
        registers = getattr(config, "num_register_tokens", 0)
        if type(registers) is not int or not 0 <= registers <= MOST_REGISTERS:
            raise InputError(f"{source}: num_register_tokens {str(registers)[:40]!r} is not from 0 to {MOST_REGISTERS}")
        patches = getattr(config, "num_patches", None)
        if patches is None:
            if config.patch_size > config.image_size:
                raise InputError(
                    f"{source}: patch_size {config.patch_size} is larger than image_size {config.image_size}"
                )
            patches = (config.image_size // config.patch_size) ** 2
        elif math.isqrt(patches) ** 2 != patches:
            raise InputError(f"{source}: num_patches {patches} is not the square of an integer")
        table, attentions = config.num_channels * config.patch_size**2 + patches, 1
    else:
        table, attentions = config.vocab_size + config.max_position_embeddings, 2  # GPT-2's n_positions, too
    layer = 4 * attentions * config.hidden_size**2 + 2 * inner * config.hidden_size
    parameters = config.num_hidden_layers * layer + table * config.hidden_size
    if parameters > MOST_PARAMETERS:
        raise InputError(f"{source}: sizes for {parameters:.1e} parameters; at most {MOST_PARAMETERS:.0e} are taken")
    activation = config.hidden_act if hasattr(config, "hidden_act") else config.activation_function
    if activation not in ACT2FN:
        raise InputError(f"{source}: unknown activation {str(activation)[:40]!r}")


def load_pretrained(
    kind: type[PreTrainedModel], name: str, config: PretrainedConfig, source: str, remedy: str, **arguments: Any
) -> tuple[Any, set[str], set[str]]:
    """Build a model and load the weights of a folder or Hugging Face id.

    Args:
        kind: the model's class.
        name: folder or id.
        config: the model's config.
        source, remedy: for error messages.
        arguments: further arguments of the model's class.

    Returns:
        the model, in float32 on the CPU; the names of its weights that the files lack; and the names of weights in the
        files that it has no place for.

    Raises:
        InputError: the weights are missing, torn, hostile, of another shape or not finite.
    """
    state = read_weights(name, source, remedy)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn about every missing weight; the caller checks these
    try:
        model, report = kind.from_pretrained(
            None,  # read no files; use only the arguments below
            config=config,
            state_dict=state,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported and refused below
            **arguments,
        )
    except Exception as error:  # wrong files raise many kinds of error
        raise InputError(f"{source}: weights torn, altered or unsafe ({brief(error)}); {remedy}") from None
    finally:
        logging.set_verbosity(verbosity)
    if report["mismatched_keys"]:
        weight, shape, expected = sorted(report["mismatched_keys"])[0]
        shapes = f"{tuple(shape)} in the file, {tuple(expected)} by config.json"
        raise InputError(f"{source}: weights of another shape: {weight} ({shapes}); {remedy}")
    check_finite(model, source, remedy, undrawn=report["missing_keys"])
    return model, set(report["missing_keys"]), set(report["unexpected_keys"])


def check_finite(module: nn.Module, source: str, remedy: str, undrawn: Collection[str] = ()) -> None:
    """Refuse weights that were loaded from `source` and are NaN or infinite (InputError); `undrawn`: see `not_finite`."""
    if problem := not_finite(module, undrawn):
        raise InputError(f"{source}: {problem}; {remedy}")


def read_weights(name: str, source: str, remedy: str) -> dict[str, Tensor]:
    """Read the tensors of a folder or Hugging Face id.

    They come from the first of `WEIGHT_FILES` that exists; if that is an index, from the files that it names.

    Raises:
        InputError: the weights are missing, torn or hostile.
    """
    for file in WEIGHT_FILES:
        path = find_file(name, file)
        if path is None:
            continue
        if not file.endswith(".index.json"):
            return _read_state(path, source, remedy)
        state = {}
        for part in _named_in_index(path, source, remedy):
            part_path = find_file(name, part)
            if part_path is None:
                raise InputError(f"{source}: {path.name} names {part}, which is missing; {remedy}")
            state |= _read_state(part_path, source, remedy)
        return state
    raise InputError(f"{source}: no weights found (neither {WEIGHT_FILES[0]} nor {WEIGHT_FILES[2]}); {remedy}")


def _named_in_index(path: Path, source: str, remedy: str) -> list[str]:
    index = read_json(path)
    table = index.get("weight_map") if isinstance(index, dict) else None
    files = list(table.values()) if isinstance(table, dict) else []
    if not files or not all(
        isinstance(file, str) and re.fullmatch(r"[\w.-]+\.(safetensors|bin)", file) for file in files
    ):
        raise InputError(f"{source}: {path.name} is not an index of weight files; {remedy}")
    return sorted(set(files))


def _read_state(path: Path, source: str, remedy: str) -> dict[str, Tensor]:
    try:
        check_regular(path)
        state = load_file(path) if path.suffix == ".safetensors" else read_torch_file(path)
    except Exception as error:  # safetensors raises its own errors
        raise InputError(f"{source}: weights torn, altered or unsafe ({brief(error)}); {remedy}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise InputError(f"{source}: {path.name} holds something other than named tensors; {remedy}")
    return state
