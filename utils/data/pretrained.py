"""Read configs, weights and tokenizers of downloaded models; damaged or mismatched files give a one-line error.

The files are read here, config.json by a list of known fields and weights as tensors, and the result is passed to
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
from transformers import (
    AddedToken,
    CLIPTokenizer,
    GPT2TokenizerFast,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from models.hub import not_finite
from utils.constants import BOS
from utils.data.untrusted_files import read_state_dict
from utils.errors import InputError, brief, is_of_models
from utils.files import read_bytes, read_json
from utils.hub import fetch_file

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
CLIP_TOKENS = {"<|startoftext|>", "<|endoftext|>"}


def find_file(name: str | Path, file: str) -> Path | None:
    """The path of a file in a model's folder, or of a Hugging Face id (downloaded if need be); None if it has no such file.

    Raises:
        InputError: there is no such folder, or the file cannot be downloaded, see `fetch_file`.
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
        raise InputError(f"{path}: a JSON object was expected; use another model")
    if "auto_map" in config:
        raise InputError(f"{path}: asks to run its own code (auto_map), which is not supported; use another model")
    return config


def find_config(name: str, source: str, remedy: str) -> dict[str, Any]:
    """Read the config.json of a folder or Hugging Face id.

    Raises:
        InputError: the file is missing or malformed, or cannot be downloaded; the message names `source`.
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
        raise InputError(f"{source}: is a {str(kind)[:40]} model; only {' or '.join(known)} is supported here")


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
        the model, in float32 on the CPU; the names of its weights that the files lack; and the names of the files'
        weights that the model does not have.

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
        if is_of_models(error):  # a bug, as the caller has checked the config with transformers' own class
            raise
        raise InputError(f"{source}: weights or config.json do not fit the model ({brief(error)}); {remedy}") from None
    finally:
        logging.set_verbosity(verbosity)
    if report["mismatched_keys"]:
        weight, shape, expected = sorted(report["mismatched_keys"])[0]
        shapes = f"{tuple(shape)} in the file, {tuple(expected)} by config.json"
        raise InputError(f"{source}: weights of another shape: {weight} ({shapes}); {remedy}")
    check_finite(model, source, remedy, skip=report["missing_keys"])
    return model, set(report["missing_keys"]), set(report["unexpected_keys"])


def check_finite(module: nn.Module, source: str, remedy: str, skip: Collection[str] = ()) -> None:
    """Refuse weights that were loaded from `source` and are NaN or infinite (InputError); `skip`: see `not_finite`."""
    if problem := not_finite(module, skip):
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


def has_tokenizer(name: str | Path) -> bool:
    """Whether a folder or Hugging Face id has the files of a GPT-2 tokenizer."""
    return _vocabulary_file(name) is not None


def _vocabulary_file(name: str | Path) -> Path | None:
    return find_file(name, "tokenizer.json") or find_file(name, "vocab.json")


def read_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """Build a GPT-2 tokenizer from its vocabulary, merges and added tokens. Other settings in the files are ignored.

    Args:
        name: folder or Hugging Face id with tokenizer.json, or with vocab.json and merges.txt.

    Raises:
        InputError: a file is missing or damaged, or asks to run code; the tokenizer is of another kind; or the ids of its
            added tokens do not follow on from its vocabulary's.
    """
    settings_file = find_file(name, "tokenizer_config.json")
    settings = {} if settings_file is None else read_config(settings_file)
    path = _vocabulary_file(name)
    try:
        vocabulary, merges, added = _read_bpe(name, path)
        tokenizer = GPT2TokenizerFast(
            vocab=vocabulary,
            merges=merges,
            add_prefix_space=settings.get("add_prefix_space") is True,
            **{token: _token_text(settings.get(token), BOS) for token in ("unk_token", "bos_token", "eos_token")},
        )
        for token in sorted(added, key=lambda token: token["id"]):
            flags = {flag: token.get(flag) is True for flag in ("lstrip", "rstrip", "single_word")}
            special = AddedToken(token["content"], normalized=False, special=True, **flags)
            tokenizer.add_tokens([special], special_tokens=True)
            token_id = tokenizer.convert_tokens_to_ids(token["content"])
            if token_id != token["id"]:  # it would be given another token's row of the model
                raise ValueError(f"the added token {token['content']!r} has id {token['id']} instead of {token_id}")
        return tokenizer
    except InputError:
        raise
    except Exception as error:  # a field may hold anything, and the tokenizers library raises its own errors
        raise InputError(f"{path}: not the files of a GPT-2 tokenizer ({brief(error)}); use another folder") from None


def read_clip_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a CLIP model from its vocabulary and merges. Other settings in the files are ignored.

    Args:
        name: folder or Hugging Face id, as for `read_tokenizer`.

    Raises:
        InputError: a file is missing or damaged, or the tokenizer is of another kind.
    """
    path = _vocabulary_file(name)
    try:
        vocabulary, merges, _ = _read_bpe(name, path)
        if not vocabulary.keys() >= CLIP_TOKENS:  # the library would add what is missing
            raise ValueError("lacks CLIP's special tokens")
        return CLIPTokenizer(vocab=vocabulary, merges=merges)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not the files of CLIP's tokenizer ({brief(error)}); use another folder") from None


def _read_bpe(
    name: str | Path, path: Path | None
) -> tuple[dict[str, int], list[tuple[str, ...]], list[dict[str, Any]]]:
    """The vocabulary, the merges, and the added tokens after the vocabulary with their flags."""
    if path is not None and path.name == "tokenizer.json":
        content = read_json(path)
        vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
        added = content.get("added_tokens", [])
    else:
        merges_file = find_file(name, "merges.txt")
        if path is None or merges_file is None:
            raise InputError(f"{name}: the tokenizer's vocab.json or merges.txt is missing; use another folder")
        added_file = find_file(name, "added_tokens.json")
        ids = {} if added_file is None else read_json(added_file)
        vocabulary, added = read_json(path), [{"content": token, "id": token_id} for token, token_id in ids.items()]
        lines = read_bytes(merges_file).decode().splitlines()
        merges = [line for line in lines if line and not line.startswith("#version")]
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    return vocabulary, pairs, [token for token in added if token["content"] not in vocabulary]


def _token_text(token: Any, default: str) -> str:
    """The text of a special token, which a file gives as a string or as an object with the field "content"."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else default
