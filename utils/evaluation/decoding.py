"""Greedy generation: exactly the published loop's tokens, without its repeated work."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.decoder import KeysValues
from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import MAX_NEW_TOKENS
from utils.data.text_codec import TextCodec, split_generated

VADOfTokens = Callable[[np.ndarray], np.ndarray]  # ids [N, L] -> VAD [N, L, 3]

# Finished rows leave the batch once they are this share of it: taking rows out copies the image keys and values.
COMPACT_SHARE = 0.1


@dataclass
class Generated:
    """Greedy texts of B images.

    token_ids: int64 [B, max_new_tokens], padded with -1 behind a row's stop token.
    lengths: int64 [B], tokens before the stop token; max_new_tokens where none came.
    top_logits: float32 [B, max_new_tokens, 2], the largest and second largest logit of each token.
    """

    token_ids: Tensor
    lengths: Tensor
    top_logits: Tensor

    def texts(self, codec: TextCodec, drop_last_token: bool = False) -> list[str]:
        """Decoded texts. `drop_last_token`: as published, a text without a stop token loses its last one."""
        limit = self.token_ids.shape[1] - int(drop_last_token)
        rows = zip(self.token_ids.tolist(), self.lengths.clamp(max=limit).tolist(), strict=True)
        return [codec.decode(tokens[:length]) for tokens, length in rows]


class _Rows:
    """The rows still being written: ids, segments, image keys and values, cached keys and values."""

    def __init__(self, ids: Tensor, segments: Tensor, image: list[KeysValues]):
        self.index = torch.arange(ids.shape[0])  # position in the whole batch
        self.ids, self.segments, self.image = ids, segments, image
        self.past: list[KeysValues] | None = None
        self.past_length = 0
        self.vad: Tensor | None = None  # VAD at the previous step, to see which cached positions still hold

    def keep(self, rows: Tensor) -> None:
        self.index = self.index[rows]
        rows = rows.to(self.ids.device)
        self.ids, self.segments = self.ids[rows], self.segments[rows]
        self.image = [(keys[rows], values[rows]) for keys, values in self.image]
        if self.past is not None:
            self.past = [(keys[rows], values[rows]) for keys, values in self.past]
        if self.vad is not None:
            self.vad = self.vad[rows]

    def crop_past(self, length: int) -> None:
        """Forget cached keys and values behind the first `length` positions."""
        if self.past is not None and length < self.past_length:
            self.past = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.past]
            self.past_length = length


@torch.inference_mode()
def greedy_decode(
    model: SEVLM,
    image: ImageFeatures,
    prompt_ids: list[int],
    prompt_segments: list[int],
    because_id: int,
    segment_ids: tuple[int, int],
    vad_of: VADOfTokens | None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    stop_ids: tuple[int, ...] = (),
) -> Generated:
    """Write one text per image, most probable token first (nucleus filtering at 0.9 keeps the arg max).

    New tokens carry segment <emotion> until " because" appears, that token and all later ones <explanation>. After each
    step the VAD of the whole sequence is looked up and encoded anew, as a tag may change with what follows.

    What is reused, and why it is exact: the keys and values of the image, always; self-attention keys and values of the
    first len_prefix + emotion_span positions, which VAD never reaches, so that no later token changes them. With a causal VAD
    encoder those of every position whose VAD, and that of all before it, is what it was a step ago.

    Args:
        model: in evaluation mode.
        image: features of the B images.
        prompt_ids, prompt_segments: what every text starts from, prefix tokens included.
        because_id: token of " because".
        segment_ids: ids of <emotion> and <explanation>.
        vad_of: VAD look-up of generated ids, or None for a model without VAD fusion.
        stop_ids: a text ends before the first of these; with none given all steps are made.
    """
    transformer = model.decoder.transformer
    device = image.grid.device
    image = transformer.project_image(image)
    batch = image.grid.shape[0]
    rows = _Rows(
        torch.tensor([prompt_ids], device=device).repeat(batch, 1),
        torch.tensor([prompt_segments], device=device).repeat(batch, 1),
        transformer.image_keys_values(image.grid),
    )
    cls = image.cls
    emotion_segment, explanation_segment = segment_ids
    stops = torch.tensor(stop_ids, device=device, dtype=torch.long)
    all_ids = torch.full((batch, max_new_tokens), -1)
    all_top = torch.zeros(batch, max_new_tokens, 2)
    lengths = torch.full((batch,), max_new_tokens)
    running = torch.ones(batch, dtype=torch.bool, device=device)

    for step in range(max_new_tokens):
        hidden = _last_hidden(model, rows, cls if step == 0 else None, vad_of)
        top = model.decoder.lm_head(hidden).float().topk(2, dim=-1)
        next_ids = top.indices[:, 0]
        explaining = (rows.segments[:, -1] == explanation_segment) | (next_ids == because_id)
        next_segments = torch.where(explaining, explanation_segment, emotion_segment)
        rows.ids = torch.cat([rows.ids, next_ids[:, None]], dim=1)
        rows.segments = torch.cat([rows.segments, next_segments[:, None]], dim=1)
        all_top[rows.index, step] = top.values.cpu()

        stopped = running & torch.isin(next_ids, stops)
        lengths[rows.index[stopped.cpu()]] = step
        running &= ~stopped
        live = running.cpu()
        all_ids[rows.index[live], step] = next_ids.cpu()[live]
        alive = int(live.sum())
        if alive == 0:
            break
        if alive <= (1 - COMPACT_SHARE) * len(live):
            rows.keep(live.nonzero().flatten())
            running = running[running]
    return Generated(all_ids, lengths, all_top)


def _last_hidden(model: SEVLM, rows: _Rows, cls: Tensor | None, vad_of: VADOfTokens | None) -> Tensor:
    """Final hidden state of the last position, [rows, D]; brings the cache up to date."""
    length = rows.ids.shape[1]
    reusable, vad_features = length, None
    if vad_of is not None:
        vad = torch.from_numpy(vad_of(rows.ids.cpu().numpy())).to(rows.ids.device)
        vad_features = model.vad_encoder(vad)
        span_end = model.decoder.transformer.fusion_start  # positions before it never see a VAD
        if not model.vad_encoder.causal:
            reusable = span_end
        elif rows.vad is not None:
            changed = (vad[:, : rows.vad.shape[1]] != rows.vad).any(-1).any(0)
            first_changed = int(changed.nonzero()[0]) if bool(changed.any()) else length
            reusable = max(span_end, first_changed)
        rows.vad = vad
    rows.crop_past(reusable)
    start = rows.past_length
    transformer = model.decoder.transformer
    x = transformer.embed(
        rows.ids[:, start:],
        rows.segments[:, start:],
        None if vad_features is None else vad_features[:, start:],
        cls,
        start=start,
    )
    hidden, rows.past = transformer(x, rows.image, rows.past, last_only=True)
    rows.past_length = length
    return hidden[:, -1]


def caption_batch(
    model: SEVLM, image: ImageFeatures, codec: TextCodec, vad_of: VADOfTokens | None, drop_last_token: bool = False
) -> list[tuple[str, str]]:
    """Generate one text per image: [(full text, explanation)] of the B images."""
    prompt_ids, prompt_segments = codec.prompt()
    generated = greedy_decode(
        model,
        image,
        prompt_ids,
        prompt_segments,
        codec.because_id,
        (codec.emotion_id, codec.explanation_id),
        vad_of,
        stop_ids=codec.stop_ids,
    )
    return [(full, split_generated(full)[1]) for full in generated.texts(codec, drop_last_token)]
