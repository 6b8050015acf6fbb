"""Packed weights, bfloat16 screening and cross-attention without keys give what the usual ways give."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from models.cpu import screening
from models.cpu.packed_weights import attention_to_grid, packed_weights
from models.cpu.screening import ScreenedTopTwo
from models.image_encoder import ImageFeatures
from tests.test_evaluation.tiny import build, features, vad_table
from utils.data.text_codec import Prompt
from utils.evaluation.decoding_state import compact_order
from utils.evaluation.generation import greedy_decode

SIZE, BECAUSE, STOPS, SEGMENTS = 40, 4, (7, 30, 38), (5, 6)
PROMPT, PROMPT_SEGMENTS = [0, 1, 2, 1, 2, 1], [5] * 6
KINDS = [(False, False), (True, False), (True, True)]
needs_bfloat16 = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="this CPU does not multiply bfloat16"
)


def texts(model, image: ImageFeatures, use_vad: bool) -> list[list[int]]:
    vad_of = vad_table(SIZE) if use_vad else None
    return greedy_decode(model, image, Prompt(PROMPT, PROMPT_SEGMENTS, BECAUSE, *SEGMENTS, STOPS), vad_of, 12).tokens()


# ---- packed weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_vad, causal", KINDS)
def test_texts_are_those_of_the_usual_weights(use_vad, causal):
    found = set()
    for seed in range(6):
        model, image = build(SIZE, seed, use_vad, causal), features(seed, images=9)
        expected = texts(model, image, use_vad)
        with packed_weights(model.decoder):
            assert texts(model, image, use_vad) == expected
        found |= set(map(len, expected))
    assert len(found) > 3, "texts of so few lengths would not show rows that change their places"


def test_every_layer_is_packed_and_given_back():
    model = build(SIZE, 0)
    x, hidden = torch.randn(3, 5, model.decoder.config.n_embd), torch.randn(7, model.decoder.config.n_embd)

    def outputs() -> list[torch.Tensor]:
        block = model.decoder.transformer.h[1]
        layers = (block.attn.c_attn, block.attn.c_proj, block.crossattention.q_attn, block.mlp)
        with torch.no_grad():
            fused = model.decoder.transformer.VAD_linear(F.pad(x, (0, 3), value=0.5))
            return [
                *(layer(x) for layer in layers),
                fused,
                model.decoder.lm_head(hidden),
                *model.decoder.top_two(hidden),
            ]

    usual, own = outputs(), [module for module in model.decoder.modules() if "forward" in vars(module)]
    with packed_weights(model.decoder):
        assert isinstance(model.decoder.top_two, ScreenedTopTwo) == torch.cpu._is_avx512_bf16_supported()
        changed = [module for module in model.decoder.modules() if "forward" in vars(module)]
        packed = outputs()
    assert not own and len(changed) > 15
    for one, other in zip(usual, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert not any("forward" in vars(module) for module in model.decoder.modules())
    assert "top_two" not in vars(model.decoder)
    with torch.no_grad():
        model.decoder.lm_head.weight.mul_(2)
    with packed_weights(model.decoder):  # what was packed before is not used again
        torch.testing.assert_close(outputs()[5], 2 * usual[5], rtol=1e-5, atol=1e-5)


def test_an_error_gives_the_usual_weights_back():
    model = build(SIZE, 0)
    with pytest.raises(KeyError), packed_weights(model.decoder):
        raise KeyError
    assert not any("forward" in vars(module) for module in model.decoder.modules())


@needs_bfloat16
def test_bfloat16_is_that_of_autocast():
    model = build(SIZE, 0)
    x = torch.randn(3, 5, model.decoder.config.n_embd)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        usual = model.decoder.transformer.h[0].mlp(x)
        with packed_weights(model.decoder, torch.bfloat16):
            packed = model.decoder.transformer.h[0].mlp(x)
    assert packed.dtype == usual.dtype == torch.bfloat16
    torch.testing.assert_close(packed, usual, rtol=2e-2, atol=2e-2 * float(usual.abs().max()))


# ---- screening ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["emulated", "of this CPU"])
def product(request, monkeypatch):
    """bfloat16's product, also where the CPU has none."""
    if request.param == "emulated":
        monkeypatch.setattr(screening, "bfloat16_product", lambda w: lambda h: (h.float() @ w.float().T).bfloat16())
    elif not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this CPU does not multiply bfloat16")


screens = pytest.mark.usefixtures("product")


def tables() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Token tables [V, D] and hidden states [N, D] that are hard to screen, each in its way."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    hidden = normal(64, 96)
    near = normal(5000, 96)
    near[:400] = near[0] + 1e-3 * normal(400, 96)  # one bfloat16 unit of a logit holds many of them
    large = normal(5000, 96)
    large[::50] *= 30
    shifted = normal(5000, 96) + 3 * hidden.mean(dim=0)  # all logits far from 0, as GPT-2's are
    return {
        "random": (normal(5000, 96), hidden),
        "near ties": (near, torch.cat([hidden, near[:4]])),
        "large norms": (large, hidden),
        "far from 0": (shifted - 40 * hidden[:1] / hidden[0].norm(), hidden),
        "tiny": (1e-6 * normal(5000, 96), hidden),
        "all alike": (normal(1, 96).expand(5000, 96).contiguous(), hidden),
        "zeros": (normal(5000, 96), torch.zeros(3, 96)),
    }


@screens
@pytest.mark.parametrize("kind", tables())
def test_screening_finds_the_two_largest(kind):
    """Row by row: what is left for one row could hide what is missing for another."""
    table, hidden = tables()[kind]
    screened = ScreenedTopTwo(table)
    exact = (hidden.double() @ table.double().T).topk(3, dim=-1)
    rounding = 1e-6 * hidden.norm(dim=-1) * table.norm(dim=-1).max()
    clear = 0
    for row in range(len(hidden)):
        left = set(screened.not_excluded(hidden[row : row + 1]).tolist())
        values, ids = screened(hidden[row : row + 1])
        torch.testing.assert_close(values[0].double(), exact.values[row, :2], rtol=0, atol=float(rounding[row]))
        if (exact.values[row].diff().abs() > 2 * rounding[row]).all():
            assert ids[0].equal(exact.indices[row, :2])
            assert left.issuperset(exact.indices[row, :2].tolist())
            clear += 1
    assert clear >= {"near ties": 30, "all alike": 0, "zeros": 0}.get(kind, 60)


@screens
@pytest.mark.parametrize("rounded", ["hidden state", "table"])
def test_rounding_that_hides_the_largest(rounded):
    """In bfloat16 token 0 is behind three others; what rounding took from it, or gave them, made it so."""
    down, up, one = torch.full((48,), 1.0037), torch.full((48,), 0.9982), torch.ones(48)  # bfloat16: all of them 1
    hidden = torch.cat([down, up, one])[None] if rounded == "hidden state" else torch.ones(1, 144)
    if rounded == "hidden state":
        down = up = one
    table = torch.zeros(2000, 144)
    table[:4, 96:] = -one  # all logits are near 0, so that their own rounding is small
    table[4:, 96:] = -3 * one
    table[0, :48] = down
    table[1:4, 48:96] = up
    table[1:4, 96] += torch.tensor([0.03125, 0.0625, 0.09375])
    low = (hidden.bfloat16() @ table.bfloat16().T).float()
    assert low.argsort(descending=True)[0, :4].tolist() == [3, 2, 1, 0]
    assert ScreenedTopTwo(table)(hidden)[1].tolist() == [[0, 3]]


@screens
def test_rounding_uses_up_nearly_all_of_the_bound():
    """It takes as much from token 0 as it gives to three others: nearly E each, where 2 E are allowed for."""
    hidden = torch.tensor([[1.0037] * 96 + [128.0, 1.0]])  # bfloat16: 1, ..., 128, 1
    table = torch.zeros(2000, 98)
    table[:, 97] = -3
    table[0] = torch.tensor([1.0] * 96 + [-0.75, 0])
    for token, last in ((1, 0.5), (2, 0.5625), (3, 0.625)):
        table[token] = torch.tensor([-1.0] * 96 + [0.75, last])
    low = (hidden.bfloat16().float() @ table.bfloat16().float().T)[0]
    assert low[:5].tolist() == [0, 0.5, 0.5625, 0.625, -3]
    screened = ScreenedTopTwo(table)
    assert screened.not_excluded(hidden).tolist() == [0, 1, 2, 3]
    assert screened(hidden)[1].tolist() == [[0, 3]]


@screens
def test_screening_excludes_most():
    """Initial weights: what is computed in float32 is a small part."""
    generator = torch.Generator().manual_seed(0)
    table = 0.02 * torch.randn(20_000, 256, generator=generator)
    hidden = F.layer_norm(torch.randn(8, 256, generator=generator), (256,))
    assert 16 <= len(ScreenedTopTwo(table).not_excluded(hidden)) < 200


@screens
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_hidden_states_that_are_not_finite(value):
    table, hidden = torch.randn(500, 32), torch.randn(2, 32)
    hidden[1, 3] = value
    values, ids = ScreenedTopTwo(table)(hidden)
    expected = (hidden @ table.T).topk(2, dim=-1)
    assert ids[0].equal(expected.indices[0])
    torch.testing.assert_close(values[0], expected.values[0])


# ---- the grid in place of keys and values ------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 4])
def test_attention_to_the_grid_is_that_to_its_keys_and_values(queries):
    decoder = build(SIZE, 0).decoder
    first, block = decoder.transformer.h
    with torch.no_grad():
        block.crossattention.c_attn.bias.normal_()  # initial biases are 0
        block.crossattention.c_proj.bias.normal_()
        grid, query = torch.randn(3, 7, block.ln_1.weight.numel()), torch.randn(3, queries, block.ln_1.weight.numel())
        expected = block.attend_to_image(query, block.image_keys_values(grid))
        with attention_to_grid(decoder, 1):
            assert len(first.image_keys_values(grid)) == 2 and block.image_keys_values(grid)[0] is grid
            torch.testing.assert_close(block.attend_to_image(query, (grid,)), expected, rtol=1e-4, atol=1e-5)
        assert len(block.image_keys_values(grid)) == 2


def test_the_last_rows_fill_the_gaps():
    for kept in itertools.product([True, False], repeat=7):
        order = compact_order(torch.tensor(kept)).tolist()
        assert sorted(order) == [row for row in range(7) if kept[row]]
        assert all(order[place] == place for place in range(len(order)) if kept[place])


@pytest.mark.slow
@pytest.mark.parametrize("use_vad, causal", KINDS)
def test_texts_do_not_depend_on_the_batch(use_vad, causal):
    ends = 0
    for seed in range(6):
        model, image = build(SIZE, seed, use_vad, causal), features(seed, images=9)
        before = ImageFeatures(image.cls.clone(), image.grid.clone())
        together = texts(model, image, use_vad)
        ends += len({len(text) for text in together}) - 1
        assert image.grid.equal(before.grid) and image.cls.equal(before.cls), "the caller's features were changed"
        for size in (1, 2, 4):
            parts = [ImageFeatures(*(part[start : start + size] for part in image)) for start in range(0, 9, size)]
            assert [text for part in parts for text in texts(model, part, use_vad)] == together
        backwards = ImageFeatures(*(part.flip(0) for part in image))
        assert texts(model, backwards, use_vad)[::-1] == together
    assert ends > 3, "texts of so few lengths would not show rows that change their places"
