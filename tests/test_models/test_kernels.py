"""The faster dropout against PyTorch's definition, and the attention that uses it."""

import pytest
import torch
from transformers import GPT2Config

from models.cpu import kernels
from models.cpu.kernels import Dropout, dropout, scaled_dot_product_attention
from models.decoder import ExplainerBlock, attend


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(3, 5, 7, 401), (1,), (0, 4)])
def test_rate_scale_and_gradient(p, shape):
    torch.manual_seed(0)
    x = (torch.rand(shape) + 1).requires_grad_()
    y = dropout(x, p)
    mask = y.detach() != 0
    if x.numel() > 1000:
        assert abs(mask.float().mean() - (1 - p)) < 4 * (p * (1 - p) / x.numel()) ** 0.5
    assert torch.allclose(y, x * mask / (1 - p), rtol=1e-4)
    y.sum().backward()
    assert torch.allclose(x.grad, mask / (1 - p), rtol=1e-4)


def test_neighbours_are_independent():
    """Four elements use one random number, each its own bits."""
    torch.manual_seed(0)
    mask = (dropout(torch.ones(100_000, 4), 0.3) != 0).float()
    assert (torch.corrcoef(mask.T) - torch.eye(4)).abs().max() < 0.015


def test_dropout_is_off_in_evaluation_and_at_0():
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert dropout(x, 0.0).equal(x) and dropout(x, 1.0).equal(torch.zeros(10))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("queries", [1, 3, 7])
def test_attention_in_training_is_that_of_evaluation_but_for_dropout(causal, queries, monkeypatch):
    """Which doubles the weights here, behind their softmax, so that the values that come out are doubled."""
    torch.manual_seed(0)
    sizes = {"n_embd": 12, "n_head": 3, "n_layer": 1, "vocab_size": 9, "attn_pdrop": 0.2, "resid_pdrop": 0.3}
    attention = ExplainerBlock(GPT2Config(**sizes, add_cross_attention=True), layer_idx=0).attn
    torch.nn.init.normal_(attention.c_proj.bias)
    query, keys, values = torch.randn(2, queries, 12), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4)
    expected = attend(attention.eval(), query, (keys, values), causal)
    rates = []
    monkeypatch.setattr(kernels, "dropout", lambda x, p: rates.append(p) or (2 * x if p == 0.2 else x))
    given = attend(attention.train(), query, (keys, values), causal)
    assert rates == [0.2, 0.3]  # on the weights; then the module behind the projection
    assert torch.allclose(given - attention.c_proj.bias, 2 * (expected - attention.c_proj.bias), atol=1e-6)


@pytest.mark.parametrize(("causal", "expected"), [(True, [2.0, 2.5, 3.0]), (False, [3.0] * 3)])
def test_the_queries_of_causal_attention_are_the_last_positions(causal, expected):
    """Seven positions whose values are their numbers and whose scores are equal: the mean of those that a query sees."""
    query, keys, values = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 7, 4), torch.arange(7.0).view(1, 1, 7, 1)
    means = scaled_dot_product_attention(query, keys, values, causal, p=0.0, scale=1.0)
    assert means.flatten().tolist() == pytest.approx(expected)


def test_bf16_attention_in_training_has_float32s_softmax(monkeypatch):
    """Weights whose sum bfloat16 would round: 1 000 equal keys, each with the weight 1 / 1 000."""
    weights: list[torch.Tensor] = []
    monkeypatch.setattr(kernels, "dropout", lambda x, p: weights.append(x) or x)
    query, keys = torch.zeros(1, 1, 1, 4).bfloat16(), torch.zeros(1, 1, 1000, 4).bfloat16()
    values = torch.arange(1000.0).bfloat16()[None, None, :, None]
    mean = scaled_dot_product_attention(query, keys, values, causal=False, p=0.1, scale=0.5)
    assert weights[0].dtype == torch.float32 and weights[0].sum().item() == pytest.approx(1)
    assert mean.dtype == torch.bfloat16 and mean.item() == pytest.approx(499.5, rel=0.01)
