"""The VAD encoder of the paper's VAD embedding: a tiny transformer over a text's valence-arousal-dominance values.

Its output is fused into the explanation's tokens by `ExplainerTransformer.embed`, the second part of the VAD embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VAD_WIDTH = 3
FEED_FORWARD_WIDTH = 128
MAX_POSITIONS = 5000


class SelfAttention(nn.Module):
    """Self-attention of the VAD encoder, [T, L, 3] -> [T, L, 3]: softmax(query key^T / sqrt(3 / heads)) value.

    There is dropout on the attention weights and no output projection. Every position attends to every other, padding
    included; with `causal` no position attends to later ones (not in the paper).
    """

    def __init__(self, heads: int, dropout: float, causal: bool):
        super().__init__()
        self.query = nn.Linear(VAD_WIDTH, VAD_WIDTH)
        self.key = nn.Linear(VAD_WIDTH, VAD_WIDTH)
        self.value = nn.Linear(VAD_WIDTH, VAD_WIDTH)
        self.heads, self.dropout, self.causal = heads, dropout, causal

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=self.causal)
        return attended.transpose(1, 2).flatten(2)


class VADEncoderLayer(nn.Module):
    """One layer of the paper's VAD encoder, [T, L, 3] -> [T, L, 3].

    s = LN1(s + drop(attention(s)))
    s = LN2(s + drop(W2 relu(W1 s)))   W1: 3 -> 128, W2: 128 -> 3
    """

    def __init__(self, heads: int, dropout: float, causal: bool):
        super().__init__()
        self.self_attention = SelfAttention(heads, dropout, causal)
        self.fc = nn.Sequential(
            nn.Linear(VAD_WIDTH, FEED_FORWARD_WIDTH), nn.ReLU(), nn.Linear(FEED_FORWARD_WIDTH, VAD_WIDTH)
        )
        self.norm1 = nn.LayerNorm(VAD_WIDTH)
        self.norm2 = nn.LayerNorm(VAD_WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x)))
        return self.norm2(x + self.dropout(self.fc(x)))


class VADEncoder(nn.Module):
    """The VAD encoder of the paper's VAD embedding.

    x = LayerNorm(VAD + position_embedding)
    x = x + layer(x)   for every layer

    As published, attention has no mask: every position sees later tokens and padding. In training later tokens are
    known, in generation they are not. `causal=True` removes this difference; it also makes an exact key/value cache
    possible.

    Initial weights are PyTorch's defaults; the position table is drawn from N(0, 1). Parameter names match the
    published checkpoints.

    Args:
        layers: number of layers (paper: 3).
        heads: number of attention heads; 1 or 3, because the width is 3 (paper: 1).
        dropout: rate in [0, 1), on the attention weights and on both sublayers' outputs (paper: 0.1).
        causal: mask later positions (paper: False).
    """

    def __init__(self, layers: int = 3, heads: int = 1, dropout: float = 0.1, causal: bool = False):
        super().__init__()
        self.causal = causal
        self.pos_encoder = nn.Embedding(MAX_POSITIONS, VAD_WIDTH)
        self.norm = nn.LayerNorm(VAD_WIDTH)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(VADEncoderLayer(heads, dropout, causal) for _ in range(layers))}
        )
        # Nothing uses this 3 -> 1 layer. It is here because published checkpoints contain its weights.
        self.decoder = nn.Linear(VAD_WIDTH, 1).requires_grad_(False)

    def forward(self, vad: Tensor) -> Tensor:
        """Lexicon VAD [T, L, 3] in [-1, 1], L at most 5000 -> VAD features [T, L, 3]."""
        positions = torch.arange(vad.shape[1], device=vad.device)
        x = self.norm(vad + self.pos_encoder(positions))
        for layer in self.encoder["layers"]:
            x = x + layer(x)
        return x
