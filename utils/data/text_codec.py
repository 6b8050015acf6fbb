"""Encode and decode text: GPT-2's byte-pair encoding plus four added tokens, and the layout of a training text."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from utils.constants import ADDED_TOKENS, BECAUSE, BOS, EMOTION, EMOTIONS, EXPLANATION, IGNORED_LABEL, PAD, PREFIX
from utils.data.array_cache import load_or_compute
from utils.data.pretrained import find_config, has_tokenizer, read_tokenizer
from utils.data.records import TrainingRecords, split_texts
from utils.errors import InputError
from utils.files import read_json

SHIPPED_BPE = Path(__file__).resolve().parents[2] / "models" / "gpt2-bpe"
GPT2_VOCABULARY = 50257
MAX_EXTRA_ROWS = 1000  # beyond GPT-2's vocabulary, in a model without tokenizer files: added tokens, or padding
ONLY_GPT2 = (
    "only GPT-2's vocabulary fits; give distilgpt2, gpt2, gpt2-medium, gpt2-large or gpt2-xl, or a model made of one"
)
TEXTS_AT_ONCE = 16_384  # the tokenizer's own objects take 100 times the memory of the tokens
SPECIAL_TOKENS = re.compile("|".join(map(re.escape, (BOS, *ADDED_TOKENS))))

# The replacements of transformers' clean_up_tokenization_spaces, which newer versions no longer apply to BPE: they
# remove spaces before punctuation.
SPACE_CLEANUPS = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"))
SPACE_CLEANUPS += tuple((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re"))


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a GPT-2 model and add `<pad> <prefix> <emotion> <explanation>` at the vocabulary's end.

    Args:
        name: folder or Hugging Face id. Its tokenizer files, if there are any, may bring added tokens of their own; else
            the vocabulary is that of this repository, which all sizes of GPT-2 share.

    Raises:
        InputError: there is no such model, or its tokenizer is missing or malformed.
    """
    if has_tokenizer(name):
        tokenizer = read_tokenizer(name)
    else:
        _check_vocabulary_size(name)
        tokenizer = read_tokenizer(SHIPPED_BPE)
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_tokens([PREFIX, EMOTION, EXPLANATION], special_tokens=True)
    return tokenizer


def check_vocabulary(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse (InputError) a --gpt2_model whose tokenizer or config.json has another vocabulary than GPT-2's."""
    _check_vocabulary_size(name, most=math.inf)
    vocabulary = tokenizer.get_vocab()
    for token, number in read_json(SHIPPED_BPE / "vocab.json").items():
        if vocabulary.get(token) != number:
            raise InputError(f"--gpt2_model {name}: its tokenizer has another token {number} than GPT-2; {ONLY_GPT2}")


def _check_vocabulary_size(name: str, most: float = GPT2_VOCABULARY + MAX_EXTRA_ROWS) -> None:
    source = f"--gpt2_model {name}"
    config = find_config(name, source, "give a folder with config.json, or a Hugging Face id")
    size = config.get("vocab_size", GPT2_VOCABULARY)
    if type(size) is not int or not GPT2_VOCABULARY <= size <= most:
        raise InputError(
            f"{source}: config.json: vocab_size {str(size)[:40]} is not GPT-2's {GPT2_VOCABULARY}; {ONLY_GPT2}"
        )


def count_named(name: str) -> int:
    """Number of tokens in the tokenizer files of a folder or Hugging Face id; without such files, GPT-2's."""
    return len(read_tokenizer(name)) if has_tokenizer(name) else GPT2_VOCABULARY


@dataclass
class EncodedTexts:
    """N texts of L tokens, see `TextCodec`. Labels and segments are computed when needed, so that a large split stays small.

    table: int32 [N, L + 2]: the tokens, the position where the explanation begins, and the one where the padding begins.
    len_prefix: k. segments: ids of <prefix>, <emotion>, <explanation>.
    """

    table: np.ndarray
    len_prefix: int
    segments: tuple[int, int, int]

    def __getitem__(self, rows: np.ndarray) -> "EncodedTexts":
        return EncodedTexts(self.table[rows], self.len_prefix, self.segments)

    @property
    def input_ids(self) -> np.ndarray:
        """int32 [N, L]."""
        return self.table[:, :-2]

    @property
    def labels(self) -> np.ndarray:
        """int32 [N, L], -100 where no token is predicted."""
        positions = np.arange(self.input_ids.shape[1])
        learned = (positions > self.len_prefix) & (positions < self.table[:, -1:])
        return np.where(learned, self.input_ids, np.int32(IGNORED_LABEL))

    @property
    def segment_ids(self) -> np.ndarray:
        """int32 [N, L]."""
        prefix, emotion, explanation = self.segments
        positions = np.arange(self.input_ids.shape[1])
        after_prefix = np.where(positions < self.table[:, -2:-1], emotion, explanation)
        return np.where(positions < self.len_prefix, prefix, after_prefix).astype(np.int32)


class Prompt(NamedTuple):
    """The tokens that generation starts from, and the ids that it needs to continue.

    ids, segments: tokens and segment ids of every text's beginning, prefix tokens included. because_id: token of
    " because"; from it on, new tokens have the segment explanation_segment, before it emotion_segment. stop_ids: a text
    ends before the first of these.
    """

    ids: list[int]
    segments: list[int]
    because_id: int
    emotion_segment: int
    explanation_segment: int
    stop_ids: tuple[int, ...] = ()


class TextCodec:
    """Encode prompts and training texts, and decode generated tokens.

    One text is `[<prefix>]*k + [bos] + bpe(prompt + " " + emotion) + bpe(" because " + explanation) + [eos]`, cut to
    max_seq_len (a long explanation loses its eos) and padded on the right:

        tokens    <prefix>*k  bos       the emotion is awe   because the sky ...  eos       <pad> ...
        labels    -100        -100      the emotion is awe   because the sky ...  eos       -100
        segments  <prefix>    <emotion> <emotion>            <explanation>                  <explanation>

    If an explanation contains the spelling of a special token, that token is encoded, as in the published code. With
    `plain_special_tokens` its letters are encoded like any other text.

    Args:
        tokenizer: GPT-2's with the added tokens, see `load_tokenizer`.
        prompt_text: text before the emotion, e.g. " the emotion is".
        max_seq_len: L, the number of tokens of each text.
        len_prefix: k, the number of <prefix> tokens.
        plain_special_tokens: see above.

    Raises:
        InputError: " because" is not a single token of this tokenizer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prompt_text: str,
        max_seq_len: int,
        len_prefix: int = 0,
        plain_special_tokens: bool = False,
    ):
        self.tokenizer, self.prompt_text = tokenizer, prompt_text
        self.plain_special_tokens = plain_special_tokens
        self.max_seq_len, self.len_prefix = max_seq_len, len_prefix
        self.pad_id, self.prefix_id, self.emotion_id, self.explanation_id = (
            tokenizer.convert_tokens_to_ids(token) for token in ADDED_TOKENS
        )
        self.bos_id = self.eos_id = tokenizer.eos_token_id
        because = self.bpe([f" {BECAUSE}"])[0]
        if len(because) != 1:
            raise InputError(f"this tokenizer splits ' {BECAUSE}' into {len(because)} tokens: only GPT-2's fits")
        self.because_id = because[0]
        self.segments = (self.prefix_id, self.emotion_id, self.explanation_id)
        self.stop_ids = (self.eos_id, self.pad_id, self.prefix_id, self.emotion_id, self.explanation_id)

    def bpe(self, texts: list[str], plain: bool = False) -> list[list[int]]:
        """Token ids of each text. With `plain`, the spelling of a special token, e.g. "<pad>", is ordinary text."""
        backend = self.tokenizer.backend_tokenizer
        backend.encode_special_tokens = plain
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode(self, emotions: list[str], explanations: list[str]) -> EncodedTexts:
        """Encode parallel lists of N emotions and explanations."""
        return EncodedTexts(self._encode_table(emotions, explanations), self.len_prefix, self.segments)

    def encode_training(self, records: TrainingRecords, cache_dir: Path | None) -> EncodedTexts:
        """Encode all M annotations of a training split; `cache_dir`: folder where the result is cached, or None."""
        key = hashlib.sha256((self.fingerprint() + self.tokenizer.backend_tokenizer.to_str()).encode())
        key.update(json.dumps([EMOTIONS, self.plain_special_tokens]).encode())
        key.update(records.explanations)
        key.update(records.emotions)

        def compute() -> list[np.ndarray]:
            emotions = [EMOTIONS[index] for index in records.emotions]
            return [self._encode_table(emotions, split_texts(records.explanations))]

        (table,) = load_or_compute(cache_dir, "texts", key.digest(), compute)
        return EncodedTexts(table, self.len_prefix, self.segments)

    def _encode_table(self, emotions: list[str], explanations: list[str]) -> np.ndarray:
        """`EncodedTexts.table` of parallel lists."""
        table = np.full((len(emotions), self.max_seq_len + 2), self.pad_id, dtype=np.int32)
        for start in range(0, len(emotions), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            self._fill_rows(table[part], emotions[part], explanations[part])
        return table

    def _fill_rows(self, table: np.ndarray, emotions: list[str], explanations: list[str]) -> None:
        """Write rows of `_encode_table`, whose tokens are all <pad> before."""
        length = self.max_seq_len
        names, name_of_row = np.unique(emotions, return_inverse=True)
        heads = [
            [self.prefix_id] * self.len_prefix + [self.bos_id] + tokens
            for tokens in self.bpe([f"{self.prompt_text} {emotion}" for emotion in names])
        ]
        for index, head in enumerate(heads):
            table[name_of_row == index, : min(len(head), length)] = head[:length]
        starts = np.array([len(head) for head in heads])[name_of_row]
        tails = self.bpe([f" {BECAUSE} {text}" for text in explanations], self.plain_special_tokens)
        lengths = np.array([len(tail) + 1 for tail in tails])
        tokens = np.concatenate([np.array([*tail, self.eos_id], np.int32) for tail in tails])
        rows = np.repeat(np.arange(len(tails)), lengths)
        columns = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
        inside = columns < length
        table[rows[inside], columns[inside]] = tokens[inside]
        table[:, length] = starts
        table[:, length + 1] = np.minimum(starts + lengths, length)

    @property
    def emotion_span(self) -> int:
        """Number of positions of bos, the prompt and the longest of the nine emotions: six for the paper's prompt."""
        emotions = self.bpe([f"{self.prompt_text} {emotion}" for emotion in EMOTIONS])
        return 1 + max(map(len, emotions))

    def prompt(self, emotion: str | None = None) -> Prompt:
        """The beginning of generated texts: `[<prefix>]*k + [bos] + bpe(prompt)`, then `given(emotion)`."""
        tokens = [self.prefix_id] * self.len_prefix + [self.bos_id, *self.bpe([self.prompt_text])[0]]
        segments = [self.prefix_id] * self.len_prefix + [self.emotion_id] * (len(tokens) - self.len_prefix)
        given = self.given(emotion)
        explained = [self.explanation_id if token == self.because_id else self.emotion_id for token in given]
        ids = (self.because_id, self.emotion_id, self.explanation_id, self.stop_ids)
        return Prompt(tokens + given, segments + explained, *ids)

    def given(self, emotion: str | None) -> list[int]:
        """Tokens of " <emotion> because", or none."""
        return [] if emotion is None else [*self.bpe([f" {emotion}"])[0], self.because_id]

    def label_tokens(self) -> list[int]:
        """The first tokens of the nine emotions after the prompt, which the label loss compares.

        Raises:
            InputError: two emotions begin with the same token, or the prompt's own tokens depend on the emotion.
        """
        prompt = self.bpe([self.prompt_text])[0]
        texts = self.bpe([f"{self.prompt_text} {emotion}" for emotion in EMOTIONS])
        tokens = [text[len(prompt)] for text in texts if text[: len(prompt)] == prompt and len(text) > len(prompt)]
        if len(set(tokens)) < len(EMOTIONS):
            raise InputError(
                f"--use_label_loss: after --prompt_text {self.prompt_text!r} this tokenizer does not give the nine emotions "
                "nine different first tokens; only GPT-2's fits"
            )
        return tokens

    def decode(self, token_ids: list[int]) -> str:
        """Decode token ids to text. Special tokens, spaces before punctuation and leading spaces are removed."""
        text = self.tokenizer.decode([token for token in token_ids if token not in self.stop_ids])
        for spaced, cleaned in SPACE_CLEANUPS:
            text = text.replace(spaced, cleaned)
        return text.lstrip()

    def pieces(self) -> list[str]:
        """The string of every token in GPT-2's byte alphabet, without the space mark; special tokens are unchanged."""
        return [
            piece.replace("Ġ", "") for piece in self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        ]

    def words(self) -> list[str]:
        """The text of every token, decoded by itself and without leading spaces."""
        alone = [[token] for token in range(len(self.tokenizer))]
        # the tokenizer's own batch_decode takes ten times as long
        return [
            word.lstrip() for word in self.tokenizer.backend_tokenizer.decode_batch(alone, skip_special_tokens=False)
        ]

    def fingerprint(self) -> str:
        """The settings that the encoding of a text depends on, as a string for cache keys."""
        return json.dumps([self.prompt_text, self.max_seq_len, self.len_prefix, len(self.tokenizer)])
