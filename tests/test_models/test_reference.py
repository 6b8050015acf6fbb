"""SEVLM against the plain reference, on tiny random models: losses, gradients and greedy texts."""

import numpy as np
import pytest
import torch

from models.image_encoder import ImageFeatures
from tests.test_models.tiny import EMOTION, EXPLANATION, IMAGES, PAD, PREFIX, VOCABULARY, build, collate, random_items
from tests.tools.benchmark import LENGTHS, forced_lengths, forced_lengths_of_reference
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


def reference_of(model) -> Reference:
    reference = Reference.of(model)
    reference.span_end = reference.prefix + model.config.emotion_span
    return reference


@pytest.mark.parametrize("images", [IMAGES, 1])
def test_losses_and_gradients(variant, images):
    model, prefix = build(**LOSS_WEIGHTS, **variant), variant.get("len_prefix", 0)
    reference, items = reference_of(model), random_items(0, images, prefix)
    batch = collate(items, prefix, prefix + model.config.emotion_span)
    output = model(**batch)
    expected = reference(**reference_batch(items, batch.get("visual_negatives")))
    assert (batch.get("visual_negatives") is None) == (images == 1)
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(output[name], value, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")

    output["loss"].backward()
    expected["loss"].backward()
    parameters, trained = dict(model.named_parameters()), 0
    assert parameters.keys() == dict(reference.named_parameters()).keys()
    for name, parameter in reference.named_parameters():
        gradient = parameters[name].grad
        if parameter.grad is None or gradient is None:
            # a part that no loss reads may have a gradient of zeros in the one and none in the other
            assert not any(grad is not None and grad.any() for grad in (parameter.grad, gradient)), name
            continue
        torch.testing.assert_close(gradient, parameter.grad, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
        trained += bool(gradient.any())
    assert trained > 50


class VADByContext:
    """VAD of generated ids that a later token can change, as a tagger's can: even tokens get another one once a token
    divisible by seven follows."""

    def __init__(self, seed: int):
        self.table = np.random.default_rng(seed).uniform(-1, 1, (2, VOCABULARY, 3)).astype(np.float32)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        later = np.cumsum((ids % 7 == 0)[:, ::-1], axis=1)[:, ::-1] > 0
        return self.table[((ids % 2 == 0) & later).astype(int), ids]


def prompt_of(len_prefix: int, because: int) -> tuple[list[int], list[int], int, tuple[int, int]]:
    return [PREFIX] * len_prefix + [0, 8, 9, 10], [PREFIX] * len_prefix + [EMOTION] * 4, because, (EMOTION, EXPLANATION)


def greedy_texts(model, image: ImageFeatures, prompt: tuple, vad_of, stop_ids: tuple[int, ...]) -> list[list[int]]:
    vad_of = None if model.vad_encoder is None else vad_of
    ids, segments, because, kinds = prompt
    return greedy_decode(
        model, image, Prompt(ids, segments, because, *kinds, stop_ids), vad_of, MAX_NEW_TOKENS
    ).tokens()


def test_greedy_texts(variant):
    model = build(**variant)
    reference, vad_of, pixels = reference_of(model), VADByContext(0), torch.randn(6, 3, 32, 32)
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


def test_forced_lengths_of_the_benchmark():
    """Its texts have the lengths that it forces, in SEVLM as in the reference."""
    model = build()
    reference, lengths = Reference.of(model), [*LENGTHS, 0, MAX_NEW_TOKENS]
    pixels, vad_of, stop_ids = torch.randn(len(lengths), 3, 32, 32), VADByContext(0), (0, PAD)
    with torch.inference_mode():
        image = model.image_features(pixels, None, None)
    with forced_lengths(model.decoder, lengths, stop_ids):
        output = greedy_texts(model, image, prompt_of(0, 5), vad_of, stop_ids)
    with forced_lengths_of_reference(reference.decoder.lm_head, lengths, stop_ids):
        expected = reference.generate(pixels, *prompt_of(0, 5), vad_of, MAX_NEW_TOKENS, stop_ids)
    assert [len(row) for row in output] == lengths
    assert output == expected
    assert "top_two" not in vars(model.decoder)
