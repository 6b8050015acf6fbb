"""Read configs and weights of downloaded models; damaged or mismatched files give a one-line error.

We read the files ourselves, config.json by a list of known fields and weights as tensors, and pass the result to
transformers. If transformers read the folder, it would follow instructions in its files: `auto_map` (run Python files
of the folder), an `_attn_implementation` of the form "name/repository" (download compiled code), adapters, quantisers,
etc.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from models.finite_weights import not_finite
from utils.data.untrusted_files import read_state_dict
from utils.errors import InputError, brief
from utils.files import read_json
from utils.hub import fetch_file

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
        InputError: the weights are missing, damaged, of another shape or not finite, or no model can be built of the config.
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
        raise InputError(f"{source}: weights or config.json do not fit the model ({brief(error)}); {remedy}") from None
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
        InputError: the weights are missing or damaged.
    """
    for file in WEIGHT_FILES:
        path = find_file(name, file)
        if path is None:
            continue
        state, parts = {}, {file: path}
        if file.endswith(".index.json"):
            try:
                parts = {part: find_file(name, part) for part in sorted(set(read_json(path)["weight_map"].values()))}
            except (KeyError, TypeError, AttributeError):
                raise InputError(f"{source}: {file} is not an index of weight files; {remedy}") from None
        for part, part_path in parts.items():
            if part_path is None:
                raise InputError(f"{source}: {file} names {part}, which is missing; {remedy}")
            try:
                state |= read_state_dict(part_path, remedy)
            except InputError as error:
                raise InputError(f"{source}: {error}") from None
        return state
    raise InputError(f"{source}: no weights found (neither {WEIGHT_FILES[0]} nor {WEIGHT_FILES[2]}); {remedy}")
