"""The heads besides the language-model head: the contrastive head, the VAD head and the 9-way emotion head."""

import torch
from torch import Tensor, nn

from models.vad_encoder import VAD_WIDTH
from utils.constants import EMOTIONS


class ContrastiveHead(nn.Module):
    """The paper's contrastive head: it scores how well an image, an emotion and an explanation match.

    s = MLP([image ; emotion ; explanation]), 3D -> D -> D -> D -> D -> 1 with ReLU between the layers.

    image is the mean of the grid, emotion the mean of the final hidden states at positions k .. h - 1, explanation the
    mean at positions h .. L - 1 (k = len_prefix, h = k + emotion_span). `SEVLM.contrastive_scores` computes the means.
    """

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(3 * width, width), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.pred = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, image: Tensor, emotion: Tensor, explanation: Tensor) -> Tensor:
        """Score three tensors [N, D] -> [N], unbounded."""
        return self.pred(torch.cat([image, emotion, explanation], dim=-1)).squeeze(-1)


class VADHead(nn.Linear):
    """The paper's VAD head: it predicts the lexicon VAD of the next token, Linear D -> 3.

    Final hidden states [T, M, D] at positions p -> VAD of the tokens at p + 1, [T, M, 3], unbounded.
    """

    def __init__(self, width: int):
        super().__init__(width, VAD_WIDTH)


class EmotionHead(nn.Linear):
    """Predict nine emotion logits from the image's class token: [B, D] -> [B, 9]. Not in the paper; off by default."""

    def __init__(self, width: int):
        super().__init__(width, len(EMOTIONS))
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
