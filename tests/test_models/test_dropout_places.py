"""Where dropout stands: every dropout is replaced by a factor of its own, and the result compared with the paper's order.
And the VAD encoder's attention, by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import vad_encoder
from models.decoder import ExplainerTransformer
from models.vad_encoder import SelfAttention, VADEncoder, VADEncoderLayer
from tests.test_models.tiny import build, collate, random_items
from tests.tools.reference import Reference


class Times(nn.Module):
    """In the place of dropout: a factor that shows where it was applied."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def replace_dropouts(transformer: nn.Module) -> None:
    """Embedding 2; per block self-attention's output 3, cross-attention's 0.5, the MLP's 0.25."""
    transformer.drop = Times(2)
    for block in transformer.h:
        block.attn.resid_dropout = Times(3)
        block.crossattention.resid_dropout = Times(0.5)
        block.mlp.dropout = Times(0.25)


@pytest.mark.parametrize("settings", [{"len_prefix": 2}, {"use_VAD": False}])
def test_decoder(settings):
    """On the sum of the three embeddings, before VAD fusion; on the output of both attentions and of the MLP."""
    model = build(**settings)
    reference = Reference.of(model)
    replace_dropouts(model.decoder.transformer)
    replace_dropouts(reference.decoder.transformer)
    batch = collate(random_items(len_prefix=reference.prefix), reference.prefix)
    image = model.image_encoder(batch["pixels"])
    vad = None if model.vad_encoder is None else model.vad_encoder(batch["vad"])
    output = model.decoder(batch["input_ids"], batch["segment_ids"], image, vad)
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
    model.decoder.config = config  # the VAD encoder has the embedding's
    for layer in type(model)(model.config, model.decoder).vad_encoder.encoder["layers"]:
        assert layer.dropout.p == layer.self_attention.dropout == 0.2


# ---- the VAD encoder -------------------------------------------------------------------------------------------------


def test_vad_encoder_layer():
    """s = LN1(s + drop(attention(s))), then LN2(s + drop(W2 relu(W1 s)))."""
    torch.manual_seed(0)
    layer, x = VADEncoderLayer(1, 0.1, False).eval(), torch.randn(2, 5, 3)
    for norm in (layer.norm1, layer.norm2):
        nn.init.normal_(norm.weight)
    layer.dropout = Times(3)
    s = layer.norm1(x + 3 * layer.self_attention(x))
    assert torch.allclose(layer(x), layer.norm2(s + 3 * layer.fc(s)), atol=1e-6)


@pytest.mark.parametrize(("training", "expected"), [(True, 0.3), (False, 0.0)])
def test_vad_encoder_drops_attention_weights_in_training(monkeypatch, training, expected):
    given = []
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(
        vad_encoder.F,
        "scaled_dot_product_attention",
        lambda *args, dropout_p, **more: given.append(dropout_p) or attend(*args, **more),
    )
    SelfAttention(1, 0.3, False).train(training)(torch.randn(1, 4, 3))
    assert given == [expected]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_heads_of_the_vad_encoder(heads, causal):
    """Head h takes the h-th part of the three numbers, with a scale of its own width: 1/sqrt(3), or 1 with three heads."""
    torch.manual_seed(0)
    attention, x = SelfAttention(heads, 0.0, causal), torch.randn(2, 6, 3)
    width, parts = 3 // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        query, key, value = (linear(x)[..., part] for linear in (attention.query, attention.key, attention.value))
        scores = query @ key.transpose(1, 2) / width**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        parts.append(scores.softmax(-1) @ value)
    assert torch.allclose(attention(x), torch.cat(parts, -1), atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_causal_vad_encoder_hides_later_positions(causal):
    """Through all layers, and through the whole model: in every layer, with the flag of the settings."""
    torch.manual_seed(0)
    model = build(vad_causal=causal, vad_layers=2, vad_heads=3)
    vad = torch.randn(1, 12, 3)
    changed = vad.clone()
    changed[:, 9, 0] += 1
    for encoder in (VADEncoder(2, 3, 0.0, causal), model.vad_encoder):
        same = (encoder(vad) == encoder(changed)).all(dim=-1)[0].tolist()
        assert same == ([True] * 9 + [False] * 3 if causal else [False] * 12)
