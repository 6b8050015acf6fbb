"""Tiny random models and batches for the tests of this folder."""

from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config

from models.config import SEVLMConfig
from models.decoder import Explainer
from models.image_encoder import ImageEncoder
from models.sevlm import SEVLM
from tests.conftest import TINY_GPT2, TINY_VIT
from utils.constants import EMOTION_SPAN, IGNORED_LABEL
from utils.data.datasets import ItemKey, PairCollator

IMAGES, LENGTH, VOCABULARY = 5, 20, 61
PAD, PREFIX, EMOTION, EXPLANATION = range(57, 61)
NONE: dict[str, Any] = {}


def build(seed: int = 0, fixed_encoder: bool = True, gpt2: dict = NONE, vision: dict = NONE, **settings: Any) -> SEVLM:
    """SEVLM in evaluation mode (no dropout), with weights large enough that all parts matter.

    gpt2, vision: fields of their configs. settings: of SEVLMConfig.
    """
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": PAD}
    decoder_config = GPT2Config(**TINY_GPT2 | sizes | gpt2, add_cross_attention=True)
    config = SEVLMConfig(**{"encoder_dim": 16, "use_cl_loss": True, "use_VAD_loss": True} | settings)
    encoder = ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**TINY_VIT | vision)), fixed_encoder)
    model = SEVLM(config, Explainer(decoder_config, config), encoder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def random_items(seed: int = 0, images: int = IMAGES, len_prefix: int = 0) -> list[dict]:
    """Training items of random tokens, lengths and distributions; a third of the tokens have no VAD."""
    rng, columns = np.random.default_rng(seed), np.arange(LENGTH)
    items = []
    for image in range(images):
        ids = rng.integers(0, PAD, (2, LENGTH)).astype(np.int32)
        ends = rng.integers(len_prefix + EMOTION_SPAN + 1, LENGTH + 1, (2, 1))
        ids[columns >= ends] = PAD
        vad = rng.uniform(-1, 1, (2, LENGTH, 3)).astype(np.float32)
        vad[rng.random((2, LENGTH)) < 0.33] = 0
        segments = np.where(columns < len_prefix + rng.integers(5, 7, (2, 1)), EMOTION, EXPLANATION)
        segments[:, :len_prefix] = PREFIX
        items.append(
            {
                "image_id": image,
                "key": ItemKey(0, image),
                "input_ids": ids,
                "labels": np.where((columns > len_prefix) & (columns < ends), ids, IGNORED_LABEL),
                "segment_ids": segments,
                "vad": vad,
                "emotion_distribution": rng.dirichlet(np.ones(9)).astype(np.float32),
                "pixels": torch.from_numpy(rng.normal(size=(3, 32, 32)).astype(np.float32)),
            }
        )
    return items


def collate(items: list[dict], len_prefix: int = 0, span_end: int | None = None) -> dict[str, torch.Tensor]:
    """The arguments of SEVLM.forward."""
    batch = PairCollator(0, len_prefix, span_end or len_prefix + EMOTION_SPAN)(items)
    del batch["image_ids"]
    return batch
