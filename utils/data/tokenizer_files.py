"""Read the files of a GPT-2 or CLIP tokenizer. Settings in the files cannot choose a class or run code."""

from pathlib import Path
from typing import Any

from transformers import AddedToken, CLIPTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

from utils.constants import BOS
from utils.data.pretrained import find_file, read_config
from utils.errors import InputError, brief
from utils.files import read_bytes, read_json

MOST_TOKENS = 10**6
CLIP_TOKENS = ("<|startoftext|>", "<|endoftext|>")


def has_tokenizer(name: str | Path) -> bool:
    """Whether a folder or Hugging Face id has the files of a GPT-2 tokenizer."""
    return any(find_file(name, file) is not None for file in ("tokenizer.json", "vocab.json"))


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
    path, vocabulary, merges, added = _read_bpe(name)
    try:
        tokenizer = GPT2TokenizerFast(
            vocab=vocabulary,
            merges=merges,
            add_prefix_space=settings.get("add_prefix_space") is True,
            **{token: _text(settings.get(token), BOS) for token in ("unk_token", "bos_token", "eos_token")},
        )
        for token, flags in added.items():
            kept = {flag: flags.get(flag) is True for flag in ("lstrip", "rstrip", "single_word")}
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=True, **kept)], special_tokens=True)
    except Exception as error:  # the tokenizers library raises its own errors
        raise InputError(f"{path}: tokenizer files cannot be read ({brief(error)}); take another tokenizer") from None
    for token, flags in added.items():  # a token of another number would be given another token's row of the model
        number = tokenizer.convert_tokens_to_ids(token)
        if number != flags["id"]:
            raise InputError(
                f"{path}: the added token {token[:40]!r} has number {flags['id']} where {number} follows; take another "
                "tokenizer"
            )
    return tokenizer


def read_clip_tokenizer(name: str | Path) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a CLIP model from its vocabulary and merges. Other settings in the files are ignored.

    Args:
        name: folder or Hugging Face id, as for `read_tokenizer`.

    Raises:
        InputError: a file is missing or damaged, or the tokenizer is of another kind.
    """
    path, vocabulary, merges, _ = _read_bpe(name)
    lacking = [token for token in CLIP_TOKENS if token not in vocabulary]
    if lacking:
        raise InputError(f"{path}: lacks {lacking[0]}, so that it is not CLIP's tokenizer; take another folder")
    try:
        return CLIPTokenizer(vocab=vocabulary, merges=merges)
    except Exception as error:  # the tokenizers library raises its own errors
        raise InputError(f"{path}: tokenizer files cannot be read ({brief(error)}); take another folder") from None


def _read_bpe(name: str | Path) -> tuple[Path, dict[str, int], list[tuple[str, str]], dict[str, dict]]:
    """The file of the vocabulary, the vocabulary, the merges, and the added tokens with their flags."""
    path = find_file(name, "tokenizer.json")
    if path is not None:
        vocabulary, merges, added = _read_whole(path)
    else:
        path, merges_file = find_file(name, "vocab.json"), find_file(name, "merges.txt")
        if path is None or merges_file is None:
            raise InputError(f"{name}: the tokenizer's vocab.json or merges.txt is missing; take another folder")
        vocabulary, merges, added = _checked_vocabulary(read_json(path), path), _read_merges(merges_file), {}
        added_file = find_file(name, "added_tokens.json")
        if added_file is not None:
            numbers = read_json(added_file)
            added = {token: {"id": numbers[token]} for token in _in_order(numbers, added_file)}
    for merge in merges:
        if not all(part in vocabulary for part in (*merge, "".join(merge))):
            raise InputError(f"{path}: lacks a token of the merge {' '.join(merge)[:40]!r}; take another tokenizer")
    return path, vocabulary, merges, added


def _text(token: Any, default: str) -> str:
    """The text of a special token, which a file gives as a string or as an object with the field "content"."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) and token else default


def _read_whole(path: Path) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, dict]]:
    """Read the vocabulary, the merges, and the added tokens with their flags, from a tokenizer.json."""
    whole = read_json(path)
    model = whole.get("model") if isinstance(whole, dict) else None
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise InputError(f"{path}: no byte-pair encoding; only GPT-2's tokenizer fits")
    vocabulary = _checked_vocabulary(model.get("vocab"), path)
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise InputError(f"{path}: has no list of merges; take another tokenizer")
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else merge for merge in merges]
    added = whole.get("added_tokens", [])
    if not isinstance(added, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) for token in added
    ):
        raise InputError(f"{path}: added_tokens is not a list of tokens; take another tokenizer")
    flags = {token["content"]: token for token in added}
    ids = {token["content"]: token.get("id") for token in added}
    behind = {token: number for token, number in ids.items() if token not in vocabulary}
    return vocabulary, _checked_merges(pairs, path), {token: flags[token] for token in _in_order(behind, path)}


def _checked_vocabulary(vocabulary: Any, path: Path) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or not len(vocabulary) < MOST_TOKENS:
        raise InputError(f"{path}: has no vocabulary of token -> number; take another tokenizer")
    _in_order(vocabulary, path)
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise InputError(f"{path}: the tokens' numbers are not 0, 1, 2, ...; take another tokenizer")
    return vocabulary


def _in_order(tokens: Any, path: Path) -> list[str]:
    """The tokens of a dictionary token -> number, sorted by number."""
    if not isinstance(tokens, dict) or not all(
        type(number) is int and 0 <= number < MOST_TOKENS and token for token, number in tokens.items()
    ):
        raise InputError(f"{path}: a JSON object of token -> number was expected; take another tokenizer")
    return sorted(tokens, key=tokens.get)


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = read_bytes(path).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); take another tokenizer") from None
    kept = (line.removesuffix("\r") for line in lines if not line.startswith("#version"))
    return _checked_merges([tuple(line.split(" ")) for line in kept if line], path)


def _checked_merges(merges: list, path: Path) -> list[tuple[str, str]]:
    for number, merge in enumerate(merges, start=1):
        parts = merge if isinstance(merge, list | tuple) else ()
        if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise InputError(f"{path}: merge {number} {str(merge)[:40]!r} is not two tokens; take another tokenizer")
    return [tuple(merge) for merge in merges]
