"""Encode and decode text: GPT-2's byte-pair encoding plus four added tokens, and the layout of a training text."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from utils.constants import ADDED_TOKENS, BECAUSE, BOS, EMOTION, EMOTIONS, EXPLANATION, IGNORED_LABEL, PAD, PREFIX
from utils.data.pretrained import find_config
from utils.data.tokenizer_files import has_tokenizer, read_tokenizer
from utils.errors import InputError

SHIPPED_BPE = Path(__file__).resolve().parents[2] / "models" / "gpt2-bpe"
GPT2_VOCABULARY = 50257
SPECIAL_TOKENS = re.compile("|".join(map(re.escape, (BOS, *ADDED_TOKENS))))

# The replacements of transformers' clean_up_tokenization_spaces, which newer versions no longer apply to BPE: they
# remove spaces before punctuation.
SPACE_CLEANUPS = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"))
SPACE_CLEANUPS += tuple((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re"))


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a GPT-2 model and add `<pad> <prefix> <emotion> <explanation>` at the vocabulary's end.

    Args:
        name: folder with tokenizer files, or a folder or Hugging Face id of a model. All GPT-2 sizes share one
            vocabulary. It is part of this repository, so it needs no download.

    Raises:
        InputError: there is no such model, or its tokenizer is missing or malformed.
    """
    if os.path.isdir(name) and has_tokenizer(name):
        tokenizer = read_tokenizer(name)
    else:
        source = f"--gpt2_model {name}"
        vocabulary = find_config(name, source, "give a folder with config.json, or an id while online").get(
            "vocab_size"
        )
        ours = vocabulary in (None, GPT2_VOCABULARY, GPT2_VOCABULARY + len(ADDED_TOKENS))
        tokenizer = read_tokenizer(SHIPPED_BPE if ours else name)
    if len(tokenizer) < 256:
        raise InputError(f"{name}: the tokenizer has {len(tokenizer)} tokens; its vocab.json or merges.txt is missing")
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_tokens([PREFIX, EMOTION, EXPLANATION], special_tokens=True)
    return tokenizer


@dataclass
class EncodedTexts:
    """N texts of L tokens: int32 arrays [N, L]. `labels` is -100 where no token is predicted."""

    input_ids: np.ndarray
    labels: np.ndarray
    segment_ids: np.ndarray


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
        self.because_id = self._because_id()
        self.stop_ids = (self.eos_id, self.pad_id, self.prefix_id, self.emotion_id, self.explanation_id)

    def _because_id(self) -> int:
        ids = self.bpe([f" {BECAUSE}"])[0]
        if len(ids) != 1:
            raise InputError(f"this tokenizer splits ' {BECAUSE}' into {len(ids)} tokens: only GPT-2's fits")
        return ids[0]

    def bpe(self, texts: list[str], plain: bool = False) -> list[list[int]]:
        """Token ids of each text. With `plain`, the spelling of a special token, e.g. "<pad>", is ordinary text."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=plain)["input_ids"]

    def encode(self, emotions: list[str], explanations: list[str]) -> EncodedTexts:
        """Encode parallel lists of N emotions and explanations."""
        kinds = sorted(set(emotions))
        emotion_parts = dict(zip(kinds, self.bpe([f"{self.prompt_text} {emotion}" for emotion in kinds]), strict=True))
        explanation_parts = self.bpe(
            [f" {BECAUSE} {explanation}" for explanation in explanations], self.plain_special_tokens
        )
        shape = (len(emotions), self.max_seq_len)
        input_ids = np.full(shape, self.pad_id, dtype=np.int32)
        labels = np.full(shape, IGNORED_LABEL, dtype=np.int32)
        segment_ids = np.full(shape, self.explanation_id, dtype=np.int32)
        for row, (emotion, explanation_part) in enumerate(zip(emotions, explanation_parts, strict=True)):
            head = [self.prefix_id] * self.len_prefix + [self.bos_id]
            emotion_end = len(head) + len(emotion_parts[emotion])
            tokens = (head + emotion_parts[emotion] + explanation_part + [self.eos_id])[: self.max_seq_len]
            input_ids[row, : len(tokens)] = tokens
            labels[row, len(head) : len(tokens)] = tokens[len(head) :]
            segment_ids[row, : self.len_prefix] = self.prefix_id
            segment_ids[row, self.len_prefix : emotion_end] = self.emotion_id
        return EncodedTexts(input_ids, labels, segment_ids)

    @property
    def emotion_span(self) -> int:
        """Number of positions of bos, the prompt and the longest of the nine emotions: six for the paper's prompt."""
        emotions = self.bpe([f"{self.prompt_text} {emotion}" for emotion in EMOTIONS])
        return 1 + max(map(len, emotions))

    def prompt(self, emotion: str | None = None) -> tuple[list[int], list[int]]:
        """Token ids and segment ids with which generation starts: `[<prefix>]*k + [bos] + bpe(prompt)`, and `given(emotion)`."""
        tokens = [self.prefix_id] * self.len_prefix + [self.bos_id, *self.bpe([self.prompt_text])[0]]
        segments = [self.prefix_id] * self.len_prefix + [self.emotion_id] * (len(tokens) - self.len_prefix)
        given = self.given(emotion)
        explained = [self.explanation_id if token == self.because_id else self.emotion_id for token in given]
        return tokens + given, segments + explained

    def given(self, emotion: str | None) -> list[int]:
        """Tokens of " <emotion> because", or none."""
        return [] if emotion is None else [*self.bpe([f" {emotion}"])[0], self.because_id]

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


def count_special_tokens(texts: Iterable[str]) -> dict[str, int]:
    """Count how often each special token is spelled in the texts; tokens that do not occur are left out."""
    return dict(Counter(token for text in texts for token in SPECIAL_TOKENS.findall(text)))
