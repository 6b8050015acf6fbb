"""The image encoder: CLIP's vision transformer, ln_post applied to every token (the paper: ViT-B/16 at 224 px, frozen)."""

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel


class ImageFeatures(NamedTuple):
    """What the image encoder returns: cls [B, D], the class token; grid [B, G, D], the patches."""

    cls: Tensor
    grid: Tensor


class ImageEncoder(nn.Module):
    """Pixels -> class token and patch grid, both after ln_post, without CLIP's projection.

    The published code hands on the first *patch*, layer-normed twice, in place of the class token; only len_prefix > 0
    reads it. We return the class token.

    A fixed encoder takes no gradient and stays in evaluation mode, whatever `train()` says of the model around it.
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
