"""The heads beside the language model: contrastive head, VAD head and 9-way emotion head."""

import torch
from torch import Tensor, nn

from models.vad_encoder import VAD_WIDTH
from utils.constants import EMOTIONS


class ContrastiveHead(nn.Module):
    """Score how well image, emotion and explanation belong together (the paper's contrastive head).

    An MLP 3D -> D -> D -> D -> D -> 1 with ReLU between, on [image ; emotion ; explanation].
    """

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(3 * width, width), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.pred = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, image: Tensor, emotion: Tensor, explanation: Tensor) -> Tensor:
        """Three tensors [N, D] -> scores [N], unbounded."""
        return self.pred(torch.cat([image, emotion, explanation], dim=-1)).squeeze(-1)


class VADHead(nn.Linear):
    """Predict the VAD of the next token from the final hidden state: [T, M, D] -> [T, M, 3] (the paper's VAD head)."""

    def __init__(self, width: int):
        super().__init__(width, VAD_WIDTH)


class EmotionHead(nn.Linear):
    """Nine emotion logits from the image's class token: [B, D] -> [B, 9]. Not in the paper; off by default."""

    def __init__(self, width: int):
        super().__init__(width, len(EMOTIONS))
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
