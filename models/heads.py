"""The heads beside the language model: contrastive head and 9-way emotion head (the VAD head is one Linear, D -> 3)."""

import torch
from torch import Tensor, nn

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


class EmotionHead(nn.Linear):
    """Nine emotion logits from the image's class token: [B, D] -> [B, 9]. Not in the paper; off by default."""

    def __init__(self, width: int):
        super().__init__(width, len(EMOTIONS))
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
