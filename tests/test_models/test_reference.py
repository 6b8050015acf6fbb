"""SEVLM against the plain reference, on tiny random models: losses, gradients and greedy texts."""

import numpy as np
import pytest
import torch
from torch import nn

from models.image_encoder import ImageFeatures
from tests.test_models.tiny import EMOTION, EXPLANATION, IMAGES, PREFIX, VOCABULARY, build, collate, random_items
from tests.tools.reference import Reference, reference_batch
from utils.constants import MAX_NEW_TOKENS
from utils.data.text_codec import Prompt
from utils.evaluation.generation import greedy_decode

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
VARIANTS = {
    "paper": {},
    "no VAD, prefix": {"use_VAD": False, "len_prefix": 2},
    "causal, two layers": {"vad_causal": True, "vad_layers": 2},
    "trained encoder, prefix, short span": {"fixed_encoder": False, "len_prefix": 2, "emotion_span": 5},
}
LOSS_WEIGHTS = {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0}


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    return VARIANTS[request.param]


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """A part that no loss reads may have gradients of zeros, or none."""
    zeros = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    return zeros | {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("images", [IMAGES, 1])
def test_losses_and_gradients(variant, images):
    model, prefix = build(**LOSS_WEIGHTS, **variant), variant.get("len_prefix", 0)
    reference, items = Reference.of(model), random_items(0, images, prefix)
    batch = collate(items, prefix, model.config.fusion_start)
    output = model(**batch)
    expected = reference(**reference_batch(items, batch.get("visual_negatives")))
    torch.testing.assert_close(output, expected, **TOLERANCE)
    output["loss"].backward()
    expected["loss"].backward()
    torch.testing.assert_close(gradients(model), gradients(reference), **TOLERANCE)
    assert min(expected.values()) > 0 and sum(bool(part.any()) for part in gradients(model).values()) > 50


def vad_by_context(ids: np.ndarray) -> np.ndarray:
    """VAD of generated ids that a later token can change, as a tagger's can: it depends on whether the next one is odd."""
    table = np.random.default_rng(0).uniform(-1, 1, (2, VOCABULARY, 3)).astype(np.float32)
    return table[np.pad(ids[:, 1:] % 2, ((0, 0), (0, 1))), ids]


def prompt_of(len_prefix: int, because: int) -> tuple[list[int], list[int], int, tuple[int, int]]:
    return [PREFIX] * len_prefix + [0, 8, 9, 10], [PREFIX] * len_prefix + [EMOTION] * 4, because, (EMOTION, EXPLANATION)


def greedy_texts(model, image: ImageFeatures, prompt: tuple, vad_of, stop_ids: tuple[int, ...]) -> list[list[int]]:
    vad_of = None if model.vad_encoder is None else vad_of
    ids, segments, because, kinds = prompt
    return greedy_decode(model, image, Prompt(ids, segments, because, *kinds, stop_ids), vad_of).tokens()


def test_greedy_texts(variant):
    model = build(**variant)
    reference, vad_of, pixels = Reference.of(model), vad_by_context, torch.randn(6, 3, 32, 32)
    # what these weights write decides which token plays " because" and which ones end texts
    first = reference.generate(pixels[:1], *prompt_of(reference.prefix, -1), vad_of, 4, ())
    prompt = prompt_of(reference.prefix, first[0][3])
    endless = reference.generate(pixels, *prompt, vad_of, MAX_NEW_TOKENS, ())
    early = {token for row in endless for token in row[:6]}
    late = [[token for token in row[8:] if token not in early] for row in endless]
    stop_ids = tuple({tokens[0] for tokens in late if tokens})[:3]
    expected = reference.generate(pixels, *prompt, vad_of, MAX_NEW_TOKENS, stop_ids)
    assert len(set(map(tuple, expected))) > 1

    with torch.inference_mode():
        image = model.image_features(pixels, None, None)
    assert greedy_texts(model, image, prompt, vad_of, ()) == endless
    assert greedy_texts(model, image, prompt, vad_of, stop_ids) == expected
    assert greedy_texts(model, ImageFeatures(*(part[3:4] for part in image)), prompt, vad_of, stop_ids) == expected[3:4]
