"""Read the files of a GPT-2 or CLIP tokenizer. Settings in the files cannot choose a class or run code."""

from pathlib import Path
from typing import Any

from transformers import AddedToken, CLIPTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

from utils.constants import BOS
from utils.data.pretrained import find_file, read_config
from utils.errors import InputError, brief
from utils.files import read_bytes, read_json

CLIP_TOKENS = {"<|startoftext|>", "<|endoftext|>"}


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
        InputError: a file is missing, is damaged or asks for code to be run, the tokenizer is of another kind, or the
            numbers of its added tokens do not follow on from its vocabulary's.
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
            **{token: _text(settings.get(token), BOS) for token in ("unk_token", "bos_token", "eos_token")},
        )
        for token in sorted(added, key=lambda token: token["id"]):
            kept = {flag: token.get(flag) is True for flag in ("lstrip", "rstrip", "single_word")}
            own = AddedToken(token["content"], normalized=False, special=True, **kept)
            tokenizer.add_tokens([own], special_tokens=True)
            number = tokenizer.convert_tokens_to_ids(token["content"])
            if number != token["id"]:  # it would be given another token's row of the model
                raise ValueError(
                    f"the added token {token['content']!r} has number {token['id']} where {number} follows"
                )
        return tokenizer
    except InputError:
        raise
    except Exception as error:  # a field may hold anything, and the tokenizers library raises its own errors
        raise InputError(f"{path}: not the files of a GPT-2 tokenizer ({brief(error)}); take another") from None


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
        raise InputError(f"{path}: not the files of CLIP's tokenizer ({brief(error)}); take another folder") from None


def _read_bpe(
    name: str | Path, path: Path | None
) -> tuple[dict[str, int], list[tuple[str, ...]], list[dict[str, Any]]]:
    """The vocabulary, the merges, and the added tokens behind the vocabulary with their flags."""
    if path is not None and path.name == "tokenizer.json":
        whole = read_json(path)
        vocabulary, merges, added = whole["model"]["vocab"], whole["model"]["merges"], whole.get("added_tokens", [])
    else:
        merges_file = find_file(name, "merges.txt")
        if path is None or merges_file is None:
            raise InputError(f"{name}: the tokenizer's vocab.json or merges.txt is missing; take another folder")
        added_file = find_file(name, "added_tokens.json")
        numbers = {} if added_file is None else read_json(added_file)
        vocabulary, added = read_json(path), [{"content": token, "id": number} for token, number in numbers.items()]
        lines = read_bytes(merges_file).decode().splitlines()
        merges = [line for line in lines if line and not line.startswith("#version")]
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    return vocabulary, pairs, [token for token in added if token["content"] not in vocabulary]


def _text(token: Any, default: str) -> str:
    """The text of a special token, which a file gives as a string or as an object with the field "content"."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else default
