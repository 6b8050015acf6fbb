"""The image encoder: CLIP's vision transformer (in the paper: ViT-B/16 at 224 px, frozen)."""

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel


class ImageFeatures(NamedTuple):
    """Output of the image encoder: cls [B, D], the class token; grid [B, G, D], the patches."""

    cls: Tensor
    grid: Tensor


class ImageEncoder(nn.Module):
    """Encode pixels into the class token and the patch grid. ln_post is applied to every token; there is no projection.

    The published code returns the first *patch*, layer-normed twice, in place of the class token. Only len_prefix > 0
    reads it. We return the class token.

    A fixed encoder has no gradient and stays in evaluation mode, even if `train()` is called on the whole model.

    Args:
        vision: CLIP's vision tower.
        fixed: freeze the weights (the paper's setting).
    """

    def __init__(self, vision: CLIPVisionModel, fixed: bool = True):
        super().__init__()
        self.vision = vision.requires_grad_(not fixed)
        self.fixed = fixed
        self.train(False)

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.vision.config.image_size

    @property
    def width(self) -> int:
        """Width D of the features."""
        return self.vision.config.hidden_size

    def train(self, mode: bool = True) -> "ImageEncoder":
        return super().train(mode and not self.fixed)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Normalised pixels [B, 3, S, S] -> cls [B, D] and grid [B, G, D], G = (S / patch)^2."""
        with torch.no_grad() if self.fixed else contextlib.nullcontext():
            tokens = self.vision.post_layernorm(self.vision(pixels).last_hidden_state)
        return ImageFeatures(tokens[:, 0], tokens[:, 1:])
