"""The heads besides the output layer: the contrastive head, the VAD head and the 9-way emotion head."""

import torch
from torch import Tensor, nn

from models.image_encoder import ImageFeatures
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
    """Predict nine emotion logits from the image. Not in the paper; off by default.

    Logit e is w_e . x_e + b_e. `pooling`, one of `EMOTION_POOLINGS`, says what x_e is:

        cls         the class token, for all emotions
        mean        the mean of the patch grid, for all emotions
        prototypes  sum over the patches g of a_e(g) g, a_e = softmax over the patches of (q_e . g) / sqrt(D): each emotion has a
                    learned query q_e, its prototype, that scores the patches
    """

    def __init__(self, width: int, pooling: str = "cls"):
        super().__init__(width, len(EMOTIONS))
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        self.pooling = pooling
        if pooling == "prototypes":
            self.queries = nn.Parameter(torch.randn(len(EMOTIONS), width) * 0.02)

    def forward(self, image: ImageFeatures) -> Tensor:
        """cls [B, D] and grid [B, G, D] -> logits [B, 9]."""
        if self.pooling == "cls":
            return super().forward(image.cls)
        if self.pooling == "mean":
            return super().forward(image.grid.mean(dim=1))
        pooled = self.patch_scores(image.grid) @ image.grid
        return (pooled * self.weight).sum(dim=-1) + self.bias

    def patch_scores(self, grid: Tensor) -> Tensor:
        """The weights a_e of the patches for each emotion: [B, G, D] -> [B, 9, G], sum 1 over the patches. For prototypes only."""
        return (self.queries @ grid.transpose(1, 2) * grid.shape[-1] ** -0.5).softmax(dim=-1)
