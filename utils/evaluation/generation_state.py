"""What every way of generating shares: the rows being written, one exact step of the model, and the finished texts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.decoder import KeysValues
from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.data.text_codec import TextCodec

VADOfTokens = Callable[[np.ndarray], np.ndarray]  # ids [N, L] -> VAD [N, L, 3]


@dataclass
class Generated:
    """Generated texts of B images.

    token_ids: int64 [B, max_new_tokens], padded with -1 behind a row's stop token.
    lengths: int64 [B], tokens before the stop token; max_new_tokens where none came.
    top_logits: float32 [B, max_new_tokens, 2], the largest and second largest logit of each token.
    """

    token_ids: Tensor
    lengths: Tensor
    top_logits: Tensor

    def texts(self, codec: TextCodec, drop_last_token: bool = False, given: list[int] | None = None) -> list[str]:
        """Decoded texts.

        Args:
            drop_last_token: as published, a text without a stop token loses its last one.
            given: tokens of the emotion, where generation began behind it; they are part of the text.
        """
        return [codec.decode([*(given or []), *tokens]) for tokens in self.tokens(drop_last_token)]

    def tokens(self, drop_last_token: bool = False) -> list[list[int]]:
        """The new tokens of each text, without its stop token."""
        limit = self.token_ids.shape[1] - int(drop_last_token)
        rows = zip(self.token_ids.tolist(), self.lengths.clamp(max=limit).tolist(), strict=True)
        return [tokens[:length] for tokens, length in rows]


class Rows:
    """The texts still being written: ids, segments, image keys and values, cached keys and values.

    The texts of an image are neighbours and share its keys and values, as in models.decoder.
    """

    def __init__(self, ids: Tensor, segments: Tensor, image: list[KeysValues | Tensor]):
        self.index = torch.arange(ids.shape[0])  # position in the whole batch
        self.ids, self.segments, self.image = ids, segments, image
        self.past: list[KeysValues] | None = None
        self.past_length = 0
        self.vad: Tensor | None = None  # VAD at the previous step, to see which cached positions still hold

    def append(self, next_ids: Tensor, because_id: int, segment_ids: tuple[int, int]) -> None:
        """Add a token [rows] to every text: <emotion> until " because" appears, that token and all later ones <explanation>."""
        emotion_segment, explanation_segment = segment_ids
        explaining = (self.segments[:, -1] == explanation_segment) | (next_ids == because_id)
        next_segments = torch.where(explaining, explanation_segment, emotion_segment)
        self.ids = torch.cat([self.ids, next_ids[:, None]], dim=1)
        self.segments = torch.cat([self.segments, next_segments[:, None]], dim=1)

    def keep(self, kept: Tensor) -> None:
        """Go on with the texts `kept` only, bool [rows] (one text per image).

        The last of them take the places of those that leave. So little of the image keys and values is moved, which are by
        far the largest tensors here.
        """
        order = places_kept(kept)
        self.index = self.index[order]
        moved = (order != torch.arange(len(order))).nonzero().flatten().to(self.ids.device)
        order = order.to(self.ids.device)
        tensors = {
            id(tensor): tensor for entry in self.image for tensor in (entry if isinstance(entry, tuple) else (entry,))
        }
        for tensor in tensors.values():  # blocks may share the grid
            tensor[moved] = tensor[order[moved]]
        self.image = [
            tuple(tensor[: len(order)] for tensor in entry) if isinstance(entry, tuple) else entry[: len(order)]
            for entry in self.image
        ]
        self.reorder(order)

    def reorder(self, rows: Tensor) -> None:
        """Go on with texts `rows`, each of which may be there several times, and as many per image as before."""
        self.ids, self.segments = self.ids[rows], self.segments[rows]
        if self.past is not None:
            self.past = [(keys[rows], values[rows]) for keys, values in self.past]
        if self.vad is not None:
            self.vad = self.vad[rows]

    def crop_past(self, length: int) -> None:
        """Forget cached keys and values behind the first `length` positions."""
        if self.past is not None and length < self.past_length:
            self.past = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.past]
            self.past_length = length


def places_kept(kept: Tensor) -> Tensor:
    """Which row is in which place once only the rows `kept`, bool [rows], are there: the last ones fill the gaps."""
    order = torch.arange(int(kept.sum()))
    gaps = ~kept[: len(order)]
    order[gaps] = kept.nonzero().flatten()[len(order) - int(gaps.sum()) :]
    return order


def begin(
    model: SEVLM,
    image: ImageFeatures,
    ids: list[int],
    segments: list[int],
    texts_per_image: int = 1,
    blocks_on_grid: int = 0,
) -> tuple[Rows, Tensor]:
    """Rows that all start from the same tokens, `texts_per_image` for each of the B images; and the first step's cls, [T, D].

    The last `blocks_on_grid` blocks attend to the grid itself, which pays where a block has one new position a step.
    """
    image = model.decoder.transformer.project_image(image)
    device, texts = image.grid.device, image.grid.shape[0] * texts_per_image
    grid = image.grid.contiguous()  # it may be a slice of the encoder's tokens
    if blocks_on_grid and grid is image.grid:
        grid = grid.clone()  # Rows.keep writes into it
    with_keys = model.decoder.config.n_layer - blocks_on_grid
    rows = Rows(
        torch.tensor([ids], device=device).repeat(texts, 1),
        torch.tensor([segments], device=device).repeat(texts, 1),
        [*model.decoder.transformer.image_keys_values(grid, with_keys), *[grid] * blocks_on_grid],
    )
    return rows, image.cls.repeat_interleave(texts_per_image, dim=0)


def last_hidden(model: SEVLM, rows: Rows, cls: Tensor | None, vad_of: VADOfTokens | None) -> Tensor:
    """Final hidden state of the last position, [rows, D]; brings the cache up to date.

    The VAD of the whole sequence is looked up and encoded anew, as a tag may change with what follows.

    What is reused, and why it is exact: the keys and values of the image, always; self-attention keys and values of the
    first len_prefix + emotion_span positions, which VAD never reaches, so that no later token changes them. With a causal VAD
    encoder those of every position whose VAD, and that of all before it, is what it was a step ago.

    Args:
        cls: class tokens [rows, D], at the first step only.
        vad_of: VAD look-up of generated ids, or None for a model without VAD fusion.
    """
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
