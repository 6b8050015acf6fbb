"""The image encoder: a vision transformer (in the paper: CLIP's ViT-B/16 at 224 px, frozen)."""

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.vision_kinds import VISION_KINDS
from utils.constants import IMAGENET_MEAN, IMAGENET_STD


class ImageFeatures(NamedTuple):
    """Output of the image encoder: cls [B, D], the class token; grid [B, G, D], the patches."""

    cls: Tensor
    grid: Tensor


class ImagePreparation(NamedTuple):
    """How pictures were prepared for an encoder's training.

    size: side of the square in pixels. mean, std: per channel, of values from 0 to 1. resample: PIL's number of the filter.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int


class ImageEncoder(nn.Module):
    """Encode pixels into the class token and the patch grid.

    Every token has passed the final layer norm; there is no projection to a space shared with texts. The class token of a
    kind that has none is the output of its pooling head. `models/vision_kinds.py` lists the kinds.

    The published code returns the first *patch*, layer-normed twice, in place of the class token. Only len_prefix > 0
    reads it. We return the class token.

    A fixed encoder has no gradient and stays in evaluation mode, even if `train()` is called on the whole model. It computes
    in float32, also under autocast: what it gives is the same whether it is cached or not.

    Args:
        vision: a vision tower of one of `VISION_KINDS`.
        fixed: freeze the weights (the paper's setting).
        preparation: of its training images (default: its kind's, at its config's size).
    """

    def __init__(self, vision: PreTrainedModel, fixed: bool = True, preparation: ImagePreparation | None = None):
        super().__init__()
        self.vision = vision.requires_grad_(not fixed)
        self.fixed = fixed
        self.kind = VISION_KINDS[vision.config.model_type]
        self.preparation = preparation or default_preparation(vision.config)
        for name, parameter in vision.named_parameters():
            if name.endswith("mask_token"):  # of self-supervised training, never read here
                parameter.requires_grad_(False)
        self.train(False)

    @property
    def image_size(self) -> int:
        """Side S of the square input, in pixels."""
        return self.preparation.size

    @property
    def width(self) -> int:
        """Width D of the features."""
        return self.vision.config.hidden_size

    @property
    def patches(self) -> int:
        """Number G of patches. Pixels that a whole patch does not cover, at the right and at the bottom, are left out."""
        return (self.image_size // self.vision.config.patch_size) ** 2

    def statistics(self, normalization: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel: "imagenet" (the paper's) or the encoder's "own"."""
        own = (self.preparation.mean, self.preparation.std)
        return own if normalization == "own" else (IMAGENET_MEAN, IMAGENET_STD)

    def freeze_pooling(self) -> None:
        """Keep the pooling head as it is, in a model that does not read the class token."""
        if self.kind.class_token == "pooled" and self.vision.use_head:
            self.vision.head.requires_grad_(False)

    def train(self, mode: bool = True) -> "ImageEncoder":
        return super().train(mode and not self.fixed)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Normalised pixels [B, 3, S, S] -> cls [B, D] and grid [B, G, D], G = (S // patch)^2, row by row."""
        if not self.fixed:
            return self._encode(pixels)
        device = pixels.device.type  # autocast does not know the meta device
        in_float32 = contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
        with torch.no_grad(), in_float32:
            return self._encode(pixels)

    def _encode(self, pixels: Tensor) -> ImageFeatures:
        if self.vision.config.model_type == "siglip2_vision_model":
            output = self.vision(**_siglip2_inputs(pixels, self.vision.config.patch_size))
        else:
            output = self.vision(pixels)
        tokens = output.last_hidden_state
        if self.kind.norm is not None:
            tokens = getattr(self.vision, self.kind.norm)(tokens)
        if self.kind.class_token == "pooled":
            pooled = output.pooler_output if self.vision.use_head else tokens.mean(dim=1)
            return ImageFeatures(pooled, tokens)
        return ImageFeatures(tokens[:, 0], tokens[:, 1 + getattr(self.vision.config, "num_register_tokens", 0) :])


def default_preparation(config) -> ImagePreparation:
    """A kind's usual preparation at the size of a vision tower's config."""
    kind = VISION_KINDS[config.model_type]
    if config.model_type == "siglip2_vision_model":  # its config counts patches
        size = round(config.num_patches**0.5) * config.patch_size
    else:
        size = config.image_size
    return ImagePreparation(size, kind.mean, kind.std, kind.resample)


def _siglip2_inputs(pixels: Tensor, patch: int) -> dict[str, Tensor]:
    """SigLIP 2 takes a sequence of flattened patches, each row by row with the channels last, and the grid's shape."""
    images, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cut = pixels[:, :, : rows * patch, : columns * patch].reshape(images, channels, rows, patch, columns, patch)
    return {
        "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),
        "pixel_attention_mask": torch.ones(images, rows * columns, dtype=torch.long, device=pixels.device),
        "spatial_shapes": torch.tensor([[rows, columns]], device=pixels.device).expand(images, 2),
    }
