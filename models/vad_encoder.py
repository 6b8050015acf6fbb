"""The VAD encoder: a tiny transformer over the valence-arousal-dominance values of a text (the paper's VAD embedding)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VAD_WIDTH = 3
FEED_FORWARD_WIDTH = 128
MAX_POSITIONS = 5000


class SelfAttention(nn.Module):
    """Attention of every position over every other; no output projection, dropout on the weights.

    x [T, L, 3] -> [T, L, 3]. `causal` keeps a position from seeing later ones (not in the paper).
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
    """s = LN1(s + drop(attention(s))); s = LN2(s + drop(W2 relu(W1 s))), W1: 3 -> 128. [T, L, 3] -> [T, L, 3]."""

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
    """Encode lexicon VAD values into the features that are fused into the explanation's tokens.

    x = LayerNorm(x + position_embedding); then x = x + layer(x) for every layer. As published there is no mask: every
    position sees every other, later tokens and padding included. `causal=True` removes that gap between training
    (where later tokens are known) and generation (where they are not), and is what makes a full key/value cache exact.

    Initial values are PyTorch's defaults, the position table N(0, 1). Parameter names are those of published checkpoints.

    Args:
        layers: number of layers (paper: 3).
        heads: attention heads; 1 or 3, as the width is 3 (paper: 1).
        dropout: on attention weights and both sublayers' outputs (paper: 0.1).
        causal: mask later positions (default as published: False).
    """

    def __init__(self, layers: int = 3, heads: int = 1, dropout: float = 0.1, causal: bool = False):
        super().__init__()
        self.causal = causal
        self.pos_encoder = nn.Embedding(MAX_POSITIONS, VAD_WIDTH)
        self.norm = nn.LayerNorm(VAD_WIDTH)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(VADEncoderLayer(heads, dropout, causal) for _ in range(layers))}
        )
        # Published checkpoints carry this 3 -> 1 scorer, but nothing uses its output: kept for their sake, never trained.
        self.decoder = nn.Linear(VAD_WIDTH, 1).requires_grad_(False)

    def forward(self, vad: Tensor) -> Tensor:
        """VAD values [T, L, 3] in [-1, 1] -> features [T, L, 3]."""
        positions = torch.arange(vad.shape[1], device=vad.device)
        x = self.norm(vad + self.pos_encoder(positions))
        for layer in self.encoder["layers"]:
            x = x + layer(x)
        return x
