"""SEVLM written for reading: the oracle of the tests, and what the benchmark compares with.

Stock CLIP and GPT-2 blocks run through their own forward. Nothing is shared, cached or left out: both texts of a pair
encode their own copy of the image, logits are made at all positions, and every decoding step computes everything anew,
for finished texts too, until all have ended. Losses are the plain formulas. Only what the paper has is here.
"""

import math
from collections.abc import Callable
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from models.config import SEVLMConfig
from models.sevlm import SEVLM
from utils.constants import IGNORED_LABEL


class ReferenceVADEncoder(nn.Module):
    """x = LN(x + positions), then x = x + layer(x): [T, L, 3] -> [T, L, 3]. One head, dropout on weights and outputs."""

    def __init__(self, layers: int, dropout: float, causal: bool):
        super().__init__()
        self.pos_encoder = nn.Embedding(5000, 3)
        self.norm = nn.LayerNorm(3)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict() for _ in range(layers))})
        for layer in self.encoder["layers"]:
            layer["self_attention"] = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("query", "key", "value")})
            layer["fc"] = nn.Sequential(nn.Linear(3, 128), nn.ReLU(), nn.Linear(128, 3))
            layer["norm1"], layer["norm2"] = nn.LayerNorm(3), nn.LayerNorm(3)
        self.decoder = nn.Linear(3, 1)  # unused, as published
        self.dropout, self.causal = nn.Dropout(dropout), causal

    def forward(self, vad: Tensor) -> Tensor:
        x = self.norm(vad + self.pos_encoder.weight[: vad.shape[1]])
        for layer in self.encoder["layers"]:
            attention = layer["self_attention"]
            query, key, value = (attention[name](x) for name in ("query", "key", "value"))
            scores = query @ key.transpose(1, 2) / math.sqrt(3)
            if self.causal:
                scores = scores + later_positions(vad.shape[1]).to(scores)
            s = layer["norm1"](x + self.dropout(self.dropout(scores.softmax(dim=-1)) @ value))
            x = x + layer["norm2"](s + self.dropout(layer["fc"](s)))
        return x


class Reference(nn.Module):
    """The whole model, with random weights; parameters are named as those of our SEVLM."""

    def __init__(self, config: GPT2Config, settings: SEVLMConfig, vision: CLIPVisionConfig, fixed_encoder: bool = True):
        super().__init__()
        width, self.prefix, self.span_end = config.n_embd, settings.len_prefix, settings.fusion_start
        self.image_encoder = nn.ModuleDict({"vision": CLIPVisionModel(vision)})
        self.image_encoder.requires_grad_(not fixed_encoder)
        self.decoder = GPT2LMHeadModel(config)
        self.decoder.transformer.VAD_linear = nn.Linear(width + 3, width)
        if self.prefix > 0:
            half = width * self.prefix // 2
            project = nn.Sequential(nn.Linear(width, half), nn.Tanh(), nn.Linear(half, 2 * half))
            self.decoder.transformer.clip_project = nn.ModuleDict({"model": project})
        layers = [nn.Linear(3 * width, width), *(nn.Linear(width, width) for _ in range(3))]
        layers = [part for linear in layers for part in (linear, nn.ReLU())]
        self.decoder.sim_mlp = nn.ModuleDict({"pred": nn.Sequential(*layers, nn.Linear(width, 1))})
        self.decoder.VAD_head = nn.Linear(width, 3)
        self.vad_encoder = ReferenceVADEncoder(settings.vad_layers, config.embd_pdrop, settings.vad_causal)
        self.use_vad = settings.use_VAD
        self.weights = settings.alpha, settings.cl_Loss_weight, settings.VAD_Loss_weight

    @classmethod
    def of(cls, sevlm: SEVLM) -> "Reference":
        """The reference with the weights of our model."""
        encoder = sevlm.image_encoder
        reference = cls(sevlm.decoder.config, sevlm.config, encoder.vision.config, encoder.fixed)
        if not sevlm.config.use_VAD:
            del reference.vad_encoder
        state = {name: tensor for name, tensor in sevlm.state_dict().items() if not name.startswith("emotion_head.")}
        reference.load_state_dict(state)
        return reference.train(sevlm.training)

    def encode_image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [N, 3, S, S] -> class token [N, D] and patch grid [N, G, D], ln_post on every token."""
        vision = self.image_encoder["vision"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and vision.post_layernorm.weight.requires_grad):
            tokens = vision.post_layernorm(vision(pixels).last_hidden_state)
        return tokens[:, 0], tokens[:, 1:].contiguous()

    def hidden_states(self, input_ids: Tensor, segment_ids: Tensor, vad: Tensor, cls: Tensor, grid: Tensor) -> Tensor:
        """Final hidden states [T, L, D] of T texts, each with its own image features."""
        transformer, length = self.decoder.transformer, input_ids.shape[1]
        words = transformer.wte(input_ids)
        if self.prefix > 0:
            image_tokens = transformer.clip_project["model"](cls).view(len(cls), self.prefix, -1)
            words = torch.cat([image_tokens, words[:, self.prefix :]], dim=1)
        x = transformer.drop(words + transformer.wpe.weight[:length] + transformer.wte(segment_ids))
        if self.use_vad:
            fused = transformer.VAD_linear(torch.cat([x, self.vad_encoder(vad)], dim=-1))
            x = torch.cat([x[:, : self.span_end], fused[:, self.span_end :]], dim=1)
        mask = later_positions(length).to(x)
        for block in transformer.h:
            x = block(x, attention_mask=mask, encoder_hidden_states=grid)
        return transformer.ln_f(x)

    def forward(self, pixels, input_ids, labels, segment_ids, vad, visual_negatives) -> dict[str, Tensor]:
        """The losses of T texts, rows 2i and 2i + 1 being a pair.

        Args:
            pixels: [T, 3, S, S], the image of each text.
            input_ids, labels, segment_ids: [T, L]; labels are -100 where no token is learnt.
            vad: [T, L, 3], the lexicon's.
            visual_negatives: [T], row whose explanation is another image's; None for an image alone.
        """
        cls, grid = self.encode_image(pixels)
        hidden = self.hidden_states(input_ids, segment_ids, vad, cls, grid)

        logits = self.decoder.lm_head(hidden)[:, self.prefix : -1]
        targets = labels[:, self.prefix + 1 :]
        lm = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_LABEL)

        image = grid.mean(dim=1)
        emotion = hidden[:, self.prefix : self.span_end].mean(dim=1)
        explanation = hidden[:, self.span_end :].mean(dim=1)
        partners = torch.arange(len(hidden), device=hidden.device) ^ 1
        positive = self.similarity(image, emotion, explanation).exp()
        negative = self.similarity(image, emotion, explanation[partners]).exp()
        if visual_negatives is not None:
            negative = negative + self.similarity(image, emotion, explanation[visual_negatives]).exp()
        contrastive = -(1e-8 + positive / (1e-8 + positive + negative)).log().mean()

        predicted, wanted = self.decoder.VAD_head(hidden)[:, self.span_end - 1 : -1], vad[:, self.span_end :]
        known = (wanted != 0).any(dim=-1)
        vad_loss = F.mse_loss(predicted[known], wanted[known]) if known.any() else 0 * predicted.sum()

        alpha, contrastive_weight, vad_weight = self.weights
        loss = alpha * lm + contrastive_weight * contrastive + vad_weight * vad_loss
        return {"loss": loss, "lm_loss": lm, "contrastive_loss": contrastive, "vad_loss": vad_loss}

    def similarity(self, image: Tensor, emotion: Tensor, explanation: Tensor) -> Tensor:
        """The contrastive head: three tensors [T, D] -> [T]."""
        return self.decoder.sim_mlp["pred"](torch.cat([image, emotion, explanation], dim=1)).squeeze(1)

    @torch.no_grad()
    def generate(
        self,
        pixels: Tensor,
        prompt_ids: list[int],
        prompt_segments: list[int],
        because_id: int,
        segment_ids: tuple[int, int],
        vad_of: Callable[[np.ndarray], np.ndarray],
        max_new_tokens: int,
        stop_ids: tuple[int, ...],
    ) -> list[list[int]]:
        """Greedy texts of the images [B, 3, S, S]: the tokens before each text's first stop token."""
        emotion_segment, explanation_segment = segment_ids
        cls, grid = self.encode_image(pixels)
        ids = torch.tensor([prompt_ids] * len(pixels), device=pixels.device)
        segments = torch.tensor([prompt_segments] * len(pixels), device=pixels.device)
        stops = torch.tensor(stop_ids, device=pixels.device)
        for _ in range(max_new_tokens):
            vad = torch.from_numpy(vad_of(ids.cpu().numpy())).to(pixels.device)
            logits = self.decoder.lm_head(self.hidden_states(ids, segments, vad, cls, grid))
            next_ids = logits[:, -1].argmax(dim=-1)
            ids = torch.cat([ids, next_ids[:, None]], dim=1)
            explaining = (ids[:, len(prompt_ids) :] == because_id).any(dim=1)
            next_segments = torch.where(explaining, explanation_segment, emotion_segment)
            segments = torch.cat([segments, next_segments[:, None]], dim=1)
            if torch.isin(ids[:, len(prompt_ids) :], stops).any(dim=1).all():
                break
        rows = ids[:, len(prompt_ids) :].tolist()
        return [list(takewhile(lambda token: token not in stop_ids, row)) for row in rows]


def later_positions(length: int) -> Tensor:
    """What is added to attention scores [L, L] so that no position sees a later one: -inf there, 0 elsewhere."""
    return torch.full((length, length), -math.inf).triu(1)


def reference_batch(items: list[dict], visual_negatives: Tensor | None) -> dict[str, Tensor]:
    """Items of TrainingPairs with pixels -> the arguments of Reference.forward, the image repeated for each text."""
    batch = {name: np.concatenate([item[name] for item in items]) for name in ("input_ids", "labels", "segment_ids")}
    return {name: torch.from_numpy(array).long() for name, array in batch.items()} | {
        "vad": torch.from_numpy(np.concatenate([item["vad"] for item in items])),
        "pixels": torch.stack([item["pixels"] for item in items for _ in item["input_ids"]]),
        "visual_negatives": visual_negatives,
    }
