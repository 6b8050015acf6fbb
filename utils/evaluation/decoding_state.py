"""The texts being generated, advanced one exact step of the model at a time."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.decoder import KeysValues
from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.data.text_codec import Prompt

VADOfTokens = Callable[[np.ndarray], np.ndarray]  # ids [N, L] -> VAD [N, L, 3]


class DecodingState:
    """The texts being generated, with the keys and values that later steps reuse.

    What is reused, and why it is exact: the keys and values of the image, always; self-attention keys and values of the
    first len_prefix + emotion_span positions, which VAD never reaches, so that no later token changes them. With a causal
    VAD encoder also those of every position whose VAD, and that of all positions before it, has not changed since the
    previous step.

    Args:
        model: in evaluation mode.
        image: features of the B images.
        prompt: the beginning of every text.
        vad_of: VAD look-up of generated ids, or None for a model without VAD fusion.
        texts_per_image: texts of an image are adjacent rows and share its keys and values.
    """

    def __init__(
        self, model: SEVLM, image: ImageFeatures, prompt: Prompt, vad_of: VADOfTokens | None, texts_per_image: int = 1
    ):
        self.model, self.prompt, self.vad_of = model, prompt, vad_of
        image = model.decoder.transformer.project_image(image)
        device, texts = image.grid.device, len(image.grid) * texts_per_image
        self.index = torch.arange(texts)  # of each row in the whole batch, from which `select` removes rows
        self.ids = torch.tensor([prompt.ids], device=device).repeat(texts, 1)
        self.segments = torch.tensor([prompt.segments], device=device).repeat(texts, 1)
        self.cls = image.cls.repeat_interleave(texts_per_image, dim=0)
        grid = image.grid.clone(memory_format=torch.contiguous_format)  # `select` writes into its keys and values
        self.image = model.decoder.transformer.image_keys_values(grid)
        self.past: list[KeysValues] | None = None
        self.past_length = 0
        self.vad: Tensor | None = None  # of the previous step, to find the cached positions that are still valid

    def next_hidden(self) -> Tensor:
        """Final hidden state of the last position, [rows, D], which predicts the next token.

        The VAD of the whole sequence is looked up and encoded again, as a tag may change with what follows.
        """
        length = self.ids.shape[1]
        reusable, vad_features = length, None
        transformer = self.model.decoder.transformer
        if self.vad_of is not None:
            vad = torch.from_numpy(self.vad_of(self.ids.cpu().numpy())).to(self.ids.device)
            vad_features = self.model.vad_encoder(vad)
            reusable = transformer.fusion_start  # positions before it never see a VAD
            if self.model.vad_encoder.causal and self.vad is not None:
                changed = (vad[:, : self.vad.shape[1]] != self.vad).any(-1).any(0)
                first_changed = int(changed.nonzero()[0]) if bool(changed.any()) else length
                reusable = max(reusable, first_changed)
            self.vad = vad
        if self.past is not None and reusable < self.past_length:
            self.past = [(keys[:, :, :reusable], values[:, :, :reusable]) for keys, values in self.past]
            self.past_length = reusable
        start = self.past_length
        new_vad = None if vad_features is None else vad_features[:, start:]
        x = transformer.embed(self.ids[:, start:], self.segments[:, start:], new_vad, self.cls, start)
        hidden, self.past = transformer(x, self.image, self.past, last_only=True)
        self.past_length = length
        return hidden[:, -1]

    def append(self, next_ids: Tensor) -> None:
        """Add a token [rows] to every text: segment <emotion> until " because" appears, <explanation> from that token on."""
        prompt = self.prompt
        explaining = (self.segments[:, -1] == prompt.explanation_segment) | (next_ids == prompt.because_id)
        next_segments = torch.where(explaining, prompt.explanation_segment, prompt.emotion_segment)
        self.ids = torch.cat([self.ids, next_ids[:, None]], dim=1)
        self.segments = torch.cat([self.segments, next_segments[:, None]], dim=1)

    def select(self, chosen: Tensor) -> None:
        """Continue with the `chosen` texts only, bool [rows] (one text per image).

        The last of them take the places of those that leave, so that little of the image keys and values is moved, which
        are by far the largest tensors here.
        """
        order = compact_order(chosen)
        self.index = self.index[order]
        moved = (order != torch.arange(len(order))).nonzero().flatten().to(self.ids.device)
        order = order.to(self.ids.device)
        distinct = {id(tensor): tensor for entry in self.image for tensor in entry}  # blocks may share them
        for tensor in distinct.values():
            tensor[moved] = tensor[order[moved]]
        self.image = [tuple(tensor[: len(order)] for tensor in entry) for entry in self.image]
        self.reorder(order)

    def reorder(self, rows: Tensor) -> None:
        """Continue with the texts `rows`, each any number of times, but as many per image as before."""
        self.ids, self.segments = self.ids[rows], self.segments[rows]
        if self.past is not None:
            self.past = [(keys[rows], values[rows]) for keys, values in self.past]
        if self.vad is not None:
            self.vad = self.vad[rows]


def compact_order(chosen: Tensor) -> Tensor:
    """The row for each place once only the `chosen` rows, bool [rows], remain: the last of them fill the gaps."""
    order = torch.arange(int(chosen.sum()))
    gaps = ~chosen[: len(order)]
    order[gaps] = chosen.nonzero().flatten()[len(order) - int(gaps.sum()) :]
    return order
