"""Tiny random models, image features and VAD tables; the text-to-emotion classifier of the fixtures."""

import numpy as np
import torch
from transformers import GPT2Config

from models.config import SEVLMConfig
from models.decoder import Explainer
from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from tests.conftest import REPOSITORY
from utils.data.text_codec import Prompt

IMAGES, WIDTH = 3, 16
CLIP_SIDE, CLIP_LENGTH = 32, 24  # of the tiny CLIP model: pixels of its images, tokens of its texts
CLASSIFIER = REPOSITORY / "tests/data/artemis/preprocess_data_nets/txt_to_emotion/lstm_based/best_model.pt"


def build(vocabulary: int, seed: int = 0, use_vad: bool = True, causal: bool = False, len_prefix: int = 0) -> SEVLM:
    """Weights so large that every input shows in the output."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=40, n_embd=WIDTH, n_layer=2, n_head=2, add_cross_attention=True,
    )  # fmt: skip
    settings = SEVLMConfig(len_prefix=len_prefix, encoder_dim=WIDTH, use_VAD=use_vad, vad_causal=causal)
    model = SEVLM(settings, Explainer(config, settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def features(seed: int = 0, images: int = IMAGES) -> ImageFeatures:
    generator = torch.Generator().manual_seed(seed)
    return ImageFeatures(
        torch.randn(images, WIDTH, generator=generator), torch.randn(images, 4, WIDTH, generator=generator)
    )


def segments_of(prompt: Prompt, text: list[int]) -> list[int]:
    """Segment ids of a prompt and the tokens behind it."""
    ids = [*prompt.ids, *text]
    explained = [prompt.because_id in ids[: place + 1] for place in range(len(prompt.ids), len(ids))]
    return prompt.segments + [prompt.explanation_segment if found else prompt.emotion_segment for found in explained]


def vad_table(vocabulary: int):
    """VAD of ids that a later token changes, as a tagger's can: rows that hold token 3 have another table."""
    tables = np.random.default_rng(0).uniform(-1, 1, (2, vocabulary, 3)).astype(np.float32)
    return lambda ids: np.stack([tables[int((row == 3).any())][row] for row in ids])


VAD_OF = vad_table(50261)
