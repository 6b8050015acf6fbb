"""SEVLM against the plain reference, on tiny random models: losses, gradients and greedy texts; and the benchmark's counts."""

import argparse

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from models.image_encoder import ImageFeatures
from tests.test_models.tiny import EMOTION, EXPLANATION, IMAGES, PAD, PREFIX, VOCABULARY, build, collate, random_items
from tests.tools.benchmark import (
    CAUSAL,
    LENGTHS,
    Spec,
    Workbench,
    forced_lengths,
    forced_lengths_of_reference,
    useful_flops,
)
from tests.tools.reference import Reference, reference_batch
from utils.constants import MAX_NEW_TOKENS
from utils.data.text_codec import Prompt
from utils.evaluation.generation import greedy_decode

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
VARIANTS = {
    "paper": {},
    "no VAD, prefix": {"use_VAD": False, "len_prefix": 2},
    "causal, one layer": {"vad_causal": True, "vad_layers": 1},
    "trained encoder, prefix": {"fixed_encoder": False, "len_prefix": 2},
    "loss weights": {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0},
}


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    return VARIANTS[request.param]


@pytest.mark.parametrize(("seed", "images"), [(0, IMAGES), (1, IMAGES), (2, 1)])
def test_losses_and_gradients(variant, seed, images):
    model, prefix = build(seed, **variant), variant.get("len_prefix", 0)
    reference, items = Reference.of(model), random_items(seed, images, prefix)
    batch = collate(items, prefix)
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


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_texts(variant, seed):
    model = build(seed, **variant)
    reference, vad_of, pixels = Reference.of(model), VADByContext(seed), torch.randn(6, 3, 32, 32)
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


# ---- the benchmark ---------------------------------------------------------------------------------------------------


def test_forced_lengths():
    """The benchmark's texts have the lengths that it forces, in SEVLM as in the reference."""
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


@pytest.mark.slow
def test_a_split_is_decoded_whole():
    """Its images are counted, and written, in batches of --eval_batch_size, whatever --images is."""
    bench = Workbench("demo", argparse.Namespace(images=4), torch.device("cpu"))
    bench.args.eval_batch_size = 8
    assert bench.job(Spec("decoding", "images", flags=CAUSAL)).units == 4
    job, calls = bench.job(Spec("decoding", 24, flags=CAUSAL)), []
    assert job.units == 24
    bench.vad.for_generated, look_up = lambda ids: calls.append(len(ids)) or look_up(ids), bench.vad.for_generated
    job.run()
    bench.packed.close()
    assert calls[0] == max(calls) == 8 and calls.count(8) >= 3


def test_useful_flops():
    """Of the paper's sizes a pair of texts of usual length takes about 32 GFLOP."""
    config = GPT2Config(n_embd=768, n_layer=6, n_head=12, vocab_size=50261)
    gigaflops = useful_flops(config, patches=196, images=1, length=30, labels=38) / 1e9
    assert 29 < gigaflops < 35
    assert useful_flops(config, 196, 32, 30, 32 * 38) == pytest.approx(32 * gigaflops * 1e9)
