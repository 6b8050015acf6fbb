"""Where dropout stands: every dropout is replaced by a factor of its own, and the result compared with the paper's order.
And the VAD encoder's attention, by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import vad_encoder
from models.decoder import ExplainerTransformer
from models.vad_encoder import VADEncoderLayer
from tests.test_models.tiny import build, collate, random_items
from tests.tools.reference import Reference


class Times(nn.Module):
    """In the place of dropout: a factor that shows where it was applied."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_decoder():
    """On the sum of the three embeddings, before VAD fusion; on the output of both attentions and of the MLP."""
    model = build(len_prefix=2)
    reference = Reference.of(model)
    for transformer in (model.decoder.transformer, reference.decoder.transformer):
        transformer.drop = Times(2)
        for block in transformer.h:
            block.attn.resid_dropout = Times(3)
            block.crossattention.resid_dropout = Times(0.5)
            block.mlp.dropout = Times(0.25)
    batch = collate(random_items(len_prefix=2), 2)
    image = model.image_encoder(batch["pixels"])
    output = model.decoder(batch["input_ids"], batch["segment_ids"], image, model.vad_encoder(batch["vad"]))
    of_texts = [part.repeat_interleave(2, dim=0) for part in image]
    expected = reference.hidden_states(batch["input_ids"], batch["segment_ids"], batch["vad"], *of_texts)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_strengths_of_the_dropouts():
    model = build()
    config = model.decoder.config
    config.embd_pdrop, config.attn_pdrop, config.resid_pdrop = 0.2, 0.3, 0.4
    transformer = ExplainerTransformer(config, model.config)
    assert transformer.drop.p == 0.2
    for block in transformer.h:
        assert block.attn.attn_dropout.p == block.crossattention.attn_dropout.p == 0.3
        assert block.attn.resid_dropout.p == block.crossattention.resid_dropout.p == block.mlp.dropout.p == 0.4
    # the VAD encoder has the embedding's
    for layer in type(model)(model.config, model.decoder).vad_encoder.encoder["layers"]:
        assert layer.dropout.p == layer.self_attention.dropout == 0.2


def test_vad_encoder_layer(monkeypatch):
    """s = LN1(s + drop(attention(s))), then LN2(s + drop(W2 relu(W1 s))); attention's weights are dropped as well."""
    torch.manual_seed(0)
    layer, x = VADEncoderLayer(1, 0.3, False), torch.randn(2, 5, 3)
    for norm in (layer.norm1, layer.norm2):
        nn.init.normal_(norm.weight)
    attended, attend, layer.dropout = layer.self_attention.eval()(x), F.scaled_dot_product_attention, Times(3)

    def of_rate(*args, dropout_p, **more):
        return (1 + dropout_p) * attend(*args, **more)

    monkeypatch.setattr(vad_encoder.F, "scaled_dot_product_attention", of_rate)
    s = layer.norm1(x + 3 * 1.3 * attended)
    assert torch.allclose(layer.train()(x), layer.norm2(s + 3 * layer.fc(s)), atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_heads_of_the_vad_encoder(causal):
    """Head h takes the h-th of the three numbers, without a scale; in every layer as the model's settings say."""
    encoder, x = build(vad_causal=causal, vad_layers=2, vad_heads=3).vad_encoder, torch.randn(2, 6, 3)
    for layer in encoder.encoder["layers"]:
        attention = layer.self_attention
        query, key, value = (linear(x) for linear in (attention.query, attention.key, attention.value))
        scores = torch.einsum("nqh,nkh->nhqk", query, key)
        if causal:
            scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        expected = torch.einsum("nhqk,nkh->nqh", scores.softmax(-1), value)
        assert torch.allclose(attention(x), expected, atol=1e-6)
