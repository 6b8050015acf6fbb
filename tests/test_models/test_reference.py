"""SEVLM against the plain reference, on tiny random models: losses, gradients and greedy texts."""

import argparse
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config

from models.config import SEVLMConfig
from models.decoder import Explainer
from models.image_encoder import ImageEncoder, ImageFeatures
from models.sevlm import SEVLM
from models.vad_encoder import VADEncoder
from tests.conftest import TINY_GPT2, TINY_VIT
from tests.tools.benchmark import LENGTHS, Workbench, forced_lengths, forced_lengths_of_reference, useful_flops
from tests.tools.reference import Reference, reference_batch
from utils.constants import EMOTION_SPAN, IGNORED_LABEL, MAX_NEW_TOKENS
from utils.data.datasets import ItemKey, PairCollator
from utils.data.text_codec import Prompt
from utils.evaluation.generation import greedy_decode

IMAGES, LENGTH, VOCABULARY = 5, 20, 61
PAD, PREFIX, EMOTION, EXPLANATION = range(57, 61)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
VARIANTS = {
    "paper": {},
    "prefix": {"len_prefix": 2},
    "no VAD": {"use_vad": False},
    "no VAD, prefix": {"use_vad": False, "len_prefix": 2},
    "causal": {"vad_causal": True},
    "causal, prefix": {"vad_causal": True, "len_prefix": 2},
    "trained encoder, prefix": {"fixed_encoder": False, "len_prefix": 2},
    "loss weights": {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0},
}


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    return VARIANTS[request.param]


def build(
    seed: int,
    len_prefix: int = 0,
    use_vad: bool = True,
    vad_causal: bool = False,
    fixed_encoder: bool = True,
    **settings: Any,
) -> tuple[SEVLM, Reference]:
    """SEVLM in evaluation mode (no dropout), with weights large enough that all parts matter, and the reference."""
    torch.manual_seed(seed)
    config = GPT2Config(
        **TINY_GPT2 | {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "add_cross_attention": True},
    )
    settings = SEVLMConfig(
        len_prefix=len_prefix,
        encoder_dim=TINY_VIT["hidden_size"],
        use_VAD=use_vad,
        use_cl_loss=True,
        use_VAD_loss=True,
        vad_causal=vad_causal,
        **settings,
    )
    encoder = ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)), fixed_encoder)
    vad_encoder = VADEncoder(causal=vad_causal) if use_vad else None
    decoder = Explainer(config, settings)
    with torch.random.fork_rng(devices=[]):  # the numbers drawn below are those for which the tolerance was chosen
        model = SEVLM(settings, decoder, encoder)
    model.vad_encoder = vad_encoder
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model, Reference.of(model)


def random_items(seed: int, images: int, len_prefix: int) -> list[dict]:
    """Training items of random tokens and lengths; a third of the tokens have no VAD."""
    rng = np.random.default_rng(seed)
    items = []
    for image in range(images):
        ids = rng.integers(0, PAD, (2, LENGTH)).astype(np.int32)
        ends = rng.integers(len_prefix + EMOTION_SPAN + 1, LENGTH + 1, (2, 1))
        columns = np.arange(LENGTH)
        ids[columns >= ends] = PAD
        learnt = (columns > len_prefix) & (columns < ends)
        vad = rng.uniform(-1, 1, (2, LENGTH, 3)).astype(np.float32)
        vad[rng.random((2, LENGTH)) < 0.33] = 0
        segments = np.where(columns < len_prefix + rng.integers(5, 7, (2, 1)), EMOTION, EXPLANATION)
        segments[:, :len_prefix] = PREFIX
        items.append(
            {
                "image_id": image,
                "key": ItemKey(0, image),
                "input_ids": ids,
                "labels": np.where(learnt, ids, IGNORED_LABEL),
                "segment_ids": segments,
                "vad": vad,
                "emotion_distribution": np.full(9, 1 / 9, np.float32),
                "pixels": torch.from_numpy(rng.normal(size=(3, 32, 32)).astype(np.float32)),
            }
        )
    return items


def collate(items: list[dict], len_prefix: int) -> dict[str, torch.Tensor]:
    batch = PairCollator(0, len_prefix, len_prefix + EMOTION_SPAN)(items)
    del batch["image_ids"]
    return batch


@pytest.mark.parametrize("images", [IMAGES, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_losses_and_gradients(variant, seed, images):
    model, reference = build(seed, **variant)
    items = random_items(seed, images, variant.get("len_prefix", 0))
    batch = collate(items, variant.get("len_prefix", 0))
    output = model(**batch)
    expected = reference(**reference_batch(items, batch.get("visual_negatives")))
    assert (batch.get("visual_negatives") is None) == (images == 1)
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(output[name], value, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")

    output["loss"].backward()
    expected["loss"].backward()
    parameters = dict(model.named_parameters())
    assert parameters.keys() == dict(reference.named_parameters()).keys()
    trained = 0
    for name, parameter in reference.named_parameters():
        gradient = parameters[name].grad
        if parameter.grad is None or gradient is None:
            # a part that no loss reads may have a gradient of zeros in the one and none in the other
            assert not any(grad is not None and grad.any() for grad in (parameter.grad, gradient)), name
            continue
        torch.testing.assert_close(gradient, parameter.grad, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
        trained += bool(gradient.any())
    assert trained > 50


def test_text_without_vad():
    """No position with a lexicon value: the VAD loss is 0, not NaN."""
    model, reference = build(seed=0)
    items = [item | {"vad": np.zeros_like(item["vad"])} for item in random_items(0, 2, 0)]
    batch = collate(items, 0)
    assert model(**batch)["vad_loss"] == 0
    assert reference(**reference_batch(items, batch["visual_negatives"]))["vad_loss"] == 0


def test_cached_features_give_the_same_losses():
    model, _ = build(seed=0)
    batch = collate(random_items(0, IMAGES, 0), 0)
    expected = model(**batch)
    cached = model(**batch | {"pixels": None}, **model.image_encoder(batch["pixels"])._asdict())
    for name, value in expected.items():
        torch.testing.assert_close(cached[name], value, rtol=0, atol=0)


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


def greedy_texts(
    model: SEVLM, image: ImageFeatures, prompt: tuple, vad_of, stop_ids: tuple[int, ...]
) -> list[list[int]]:
    vad_of = None if model.vad_encoder is None else vad_of
    ids, segments, because, kinds = prompt
    generated = greedy_decode(model, image, Prompt(ids, segments, because, *kinds, stop_ids), vad_of, MAX_NEW_TOKENS)
    rows = zip(generated.token_ids.tolist(), generated.lengths.tolist(), strict=True)
    return [row[:length] for row, length in rows]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_greedy_texts(variant, seed):
    model, reference = build(seed, **variant)
    vad_of, pixels = VADByContext(seed), torch.randn(12, 3, 32, 32)
    # what these weights write decides which token plays " because" and which ones end texts
    first = reference.generate(pixels, *prompt_of(reference.prefix, -1), vad_of, MAX_NEW_TOKENS, ())
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


def test_forced_lengths():
    """The benchmark's texts have the lengths that it forces, in SEVLM as in the reference."""
    model, reference = build(seed=0)
    lengths = [*LENGTHS, 0, MAX_NEW_TOKENS]
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


def test_a_split_is_decoded_whole():
    """Its images are counted, and written, in batches of --eval_batch_size, whatever --images is."""
    bench = Workbench("demo", argparse.Namespace(batch_size=2, large_batch_size=2, images=4), torch.device("cpu"))
    bench.args.eval_batch_size = 8
    assert bench.decoding("--vad_causal").units == 4
    job, calls = bench.decoding("--vad_causal", images=24), []
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
