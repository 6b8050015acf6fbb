"""Packed weights and bfloat16 screening give what the usual ways give."""

import pytest
import torch
from torch.nn import functional as F

from models.cpu.packed_weights import packed_weights
from models.cpu.screening import MAX_LEFT, ScreenedTopTwo
from tests.test_evaluation.tiny import build, features, vad_table
from utils.data.text_codec import Prompt
from utils.evaluation.generation import greedy_decode

SIZE, STOPS = 40, (7, 30, 38)
PROMPT = Prompt([0, 1, 2, 1, 2, 1], [5] * 6, 4, 5, 6, STOPS)


@pytest.fixture
def bfloat16_products(monkeypatch):
    """On a CPU that does not multiply bfloat16: products in float32, rounded once, in the place of its own."""
    if torch.cpu._is_avx512_bf16_supported():
        return
    mkldnn = torch.ops.mkldnn
    pack, multiply = mkldnn._reorder_linear_weight, mkldnn._linear_pointwise

    def rounded_once(x, weight, bias, activation, *more):
        if x.dtype != torch.bfloat16:
            return multiply(x, weight, bias, activation, *more)
        with torch.autocast("cpu", enabled=False):
            y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
        return (F.gelu(y, approximate="tanh") if activation == "gelu" else y).bfloat16()

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(mkldnn, "_reorder_linear_weight", lambda w, n: w if w.dtype == torch.bfloat16 else pack(w, n))
    monkeypatch.setattr(mkldnn, "_linear_pointwise", rounded_once)


multiplies_bfloat16 = pytest.mark.usefixtures("bfloat16_products")

# ---- packed weights ----------------------------------------------------------------------------------------------------


def patched(decoder) -> int:
    """Modules with methods of their own, in the place of their class's."""
    return sum(any(map(callable, vars(module).values())) for module in decoder.modules())


@multiplies_bfloat16
@pytest.mark.parametrize("causal", [False, True])
def test_texts_are_those_of_the_usual_weights(causal):
    found = set()
    for seed in range(4):
        model, image = build(SIZE, seed, True, causal), features(seed, images=9)
        before, vad_of = image.grid.clone(), vad_table(SIZE)
        expected = greedy_decode(model, image, PROMPT, vad_of, 12).tokens()
        assert patched(model.decoder) == 0
        with packed_weights(model.decoder):
            assert greedy_decode(model, image, PROMPT, vad_of, 12).tokens() == expected
        assert image.grid.equal(before), "the caller's features were changed"
        found |= set(map(len, expected))
    assert len(found) > 3, "texts of so few lengths would not show rows that change their places"


def outputs(decoder, x: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
    block = decoder.transformer.h[1]
    with torch.no_grad():
        layers = (block.attn.c_attn, block.attn.c_proj, block.crossattention.q_attn, block.mlp)
        fused = decoder.transformer.VAD_linear(F.pad(x, (0, 3), value=0.5))
        return [*(layer(x) for layer in layers), fused, decoder.lm_head(hidden), *decoder.top_two(hidden)]


@multiplies_bfloat16
def test_every_layer_is_packed_and_given_back():
    decoder = build(SIZE).decoder
    inputs = torch.randn(3, 5, 16), torch.randn(7, 16)
    usual = outputs(decoder, *inputs)
    with packed_weights(decoder):
        assert isinstance(decoder.top_two, ScreenedTopTwo) and patched(decoder) > 15
        packed = outputs(decoder, *inputs)
    assert patched(decoder) == 0
    for one, other in zip(usual, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        decoder.lm_head.weight.mul_(2)
    with packed_weights(decoder):  # what was packed before is not used again
        torch.testing.assert_close(outputs(decoder, *inputs)[5], 2 * usual[5], rtol=1e-5, atol=1e-5)
    with pytest.raises(KeyError), packed_weights(decoder):
        raise KeyError
    assert patched(decoder) == 0


@multiplies_bfloat16
def test_bfloat16_is_that_of_autocast():
    decoder, x = build(SIZE).decoder, torch.randn(3, 5, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        usual = decoder.transformer.h[0].mlp(x)
        with packed_weights(decoder, torch.bfloat16):
            assert patched(decoder) > 15 and "top_two" not in vars(decoder)
            packed = decoder.transformer.h[0].mlp(x)
    assert packed.dtype == usual.dtype == torch.bfloat16
    torch.testing.assert_close(packed, usual, rtol=2e-2, atol=2e-2 * float(usual.abs().max()))


# ---- screening ---------------------------------------------------------------------------------------------------------


def tables() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Token tables [V, D] and hidden states [N, D] that are hard to screen, each in its way."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    hidden = normal(32, 96)
    near = normal(5000, 96)
    near[:400] = near[0] + 1e-3 * normal(400, 96)  # one bfloat16 unit of a logit holds many of them
    large = normal(5000, 96)
    large[::50] *= 30
    shifted = normal(5000, 96) + 3 * hidden.mean(dim=0)  # all logits far from 0, as GPT-2's are
    return {
        "near ties": (near, torch.cat([hidden, near[:4]])),
        "large norms": (large, hidden),
        "far from 0": (shifted - 40 * hidden[:1] / hidden[0].norm(), hidden),
        "tiny": (1e-6 * normal(5000, 96), hidden),
        "all alike": (normal(1, 96).expand(5000, 96).contiguous(), hidden),
        "zeros": (normal(5000, 96), torch.zeros(3, 96)),
    }


@multiplies_bfloat16
@pytest.mark.parametrize("kind", tables())
def test_screening_finds_the_two_largest(kind):
    """Together, and row by row: what is left for one row could hide what is missing for another."""
    table, hidden = tables()[kind]
    screened = ScreenedTopTwo(table)
    rounding = 1e-6 * float(hidden.norm(dim=-1).max() * table.norm(dim=-1).max())
    for rows in (hidden, *hidden.split(1)):
        values, ids = screened(rows)
        logits = rows.double() @ table.double().T
        for found in (values.double(), logits.gather(-1, ids)):
            torch.testing.assert_close(found, logits.topk(2, dim=-1).values, rtol=0, atol=rounding)
        assert (ids[:, 0] != ids[:, 1]).all()


@multiplies_bfloat16
def test_rounding_of_the_table_that_hides_the_largest():
    """In bfloat16 token 0 is behind three others: rounding took from it and gave to them."""
    hidden, table = torch.ones(1, 144), torch.zeros(2000, 144)
    table[:4, 96:] = -1  # all logits are near 0, so that their own rounding is small
    table[4:, 96:] = -3
    table[0, :48] = 1.0037  # both are 1 in bfloat16
    table[1:4, 48:96] = 0.9982
    table[1:4, 96] += torch.tensor([0.03125, 0.0625, 0.09375])
    low = (hidden.bfloat16() @ table.bfloat16().T).float()
    assert low.argsort(descending=True)[0, :4].tolist() == [3, 2, 1, 0]
    assert ScreenedTopTwo(table)(hidden)[1].tolist() == [[0, 3]]


@multiplies_bfloat16
@pytest.mark.parametrize(
    ("hidden", "best", "others", "low"),
    [
        # small logits: rounding takes as much from token 0 as it gives to the others, nearly E each, where 2 E are allowed
        ([1.0037] * 96 + [128, 1], (-0.75, 0), (0.75, 0.5, 0.5625, 0.625), [0, 0.5, 0.5625, 0.625]),
        # large ones: moreover that of token 0 is rounded down, those of the others up
        ([1.003] * 96 + [64, 1], (-0.5, 0.234375), (2.5, 0.765625, 0.7734375, 0.78125), [64, 65, 65, 65]),
    ],
)
def test_rounding_uses_up_nearly_all_of_the_bound(hidden, best, others, low):
    hidden, table = torch.tensor([hidden]), torch.zeros(2000, 98)
    table[:, 97] = -3
    table[0] = torch.tensor([1.0] * 96 + list(best))
    for token in (1, 2, 3):
        table[token] = torch.tensor([-1.0] * 96 + [others[0], others[token]])
    screened = ScreenedTopTwo(table)
    assert screened.product(hidden.bfloat16())[0, :5].tolist() == [*low, -3]
    assert screened.not_excluded(hidden).tolist() == [0, 1, 2, 3]
    assert screened(hidden)[1].tolist() == [[0, 3]]


@multiplies_bfloat16
def test_screening_excludes_most():
    """Initial weights: what is computed in float32 is a small part."""
    generator = torch.Generator().manual_seed(0)
    table = 0.02 * torch.randn(20_000, 256, generator=generator)
    hidden = F.layer_norm(torch.randn(8, 256, generator=generator), (256,))
    assert 16 <= len(ScreenedTopTwo(table).not_excluded(hidden)) < 200 < MAX_LEFT * len(table)


@multiplies_bfloat16
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_hidden_states_that_are_not_finite(value):
    table, hidden = torch.randn(500, 32), torch.randn(2, 32)
    hidden[1, 3] = value
    values, ids = ScreenedTopTwo(table)(hidden)
    expected = (hidden @ table.T).topk(2, dim=-1)
    assert ids[0].equal(expected.indices[0])
    torch.testing.assert_close(values[0], expected.values[0])
