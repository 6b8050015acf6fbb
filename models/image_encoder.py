"""The image encoder: a vision transformer (in the paper: CLIP's ViT-B/16 at 224 px, frozen)."""

import contextlib
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from models.config import ATTENTION
from utils.constants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD

HALF = (0.5, 0.5, 0.5)  # pixels from -1 to 1
BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_channels", "patch_size")
_COMMON = (*_SIZES, "hidden_act", "layer_norm_eps", "initializer_range")
_CLIP = (*_COMMON, "intermediate_size", "image_size", "attention_dropout")
_SIGLIP2 = (*_COMMON, "intermediate_size", "num_patches", "attention_dropout", "vision_use_head")
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_VIT = (*_COMMON, *_DROPOUTS, "intermediate_size", "image_size", "qkv_bias")
_DINO2 = (
    *(*_COMMON, *_DROPOUTS, "mlp_ratio", "image_size", "qkv_bias"),
    *("layerscale_value", "drop_path_rate", "use_swiglu_ffn"),
)
_DINO3 = (
    *(*_CLIP, "rope_theta", "query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias", "layerscale_value"),
    *("drop_path_rate", "use_gated_mlp", "num_register_tokens"),
    *("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"),
)


class VisionKind(NamedTuple):
    """How features are read from a kind of vision transformer, and how its images were prepared.

    model, config: transformers' classes.
    fields: what is read from config.json; all else is ignored.
    class_token: "first": the first token; "pooled": the output of the pooling head, or the mean of the patches in a model
        without one.
    norm: the final layer norm, if transformers has not applied it to `last_hidden_state`; else None.
    own_size: the positions fit any size, so that preprocessor_config.json decides on it and not config.json.
    mean, std, resample: statistics of the training images and filter of the resize, for folders without
        preprocessor_config.json.
    """

    model: type[PreTrainedModel]
    config: type[PretrainedConfig]
    fields: tuple[str, ...]
    class_token: str
    norm: str | None
    own_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int


# fmt: off
# By the model_type of the vision tower's config. Register tokens follow the class token; their number is the config's
# num_register_tokens. The grid is all tokens after them. CLIP's filter is the paper's; CLIP was trained with bicubic.
VISION_KINDS = {
    #                                                                                        class     final norm        own    statistics
    "clip_vision_model":     VisionKind(transformers.CLIPVisionModel, transformers.CLIPVisionConfig, (*_CLIP, "projection_dim", "initializer_factor"),
                                                                                             "first",  "post_layernorm", False, CLIP_MEAN, CLIP_STD, BILINEAR),
    "siglip_vision_model":   VisionKind(transformers.SiglipVisionModel, transformers.SiglipVisionConfig, (*_CLIP, "vision_use_head"),
                                                                                             "pooled", None,             False, HALF, HALF, BICUBIC),
    "siglip2_vision_model":  VisionKind(transformers.Siglip2VisionModel, transformers.Siglip2VisionConfig, _SIGLIP2,
                                                                                             "pooled", None,             False, HALF, HALF, BILINEAR),
    "dinov2":                VisionKind(transformers.Dinov2Model, transformers.Dinov2Config, (*_DINO2, "use_mask_token"),
                                                                                             "first",  None,             True,  IMAGENET_MEAN, IMAGENET_STD, BICUBIC),
    "dinov2_with_registers": VisionKind(transformers.Dinov2WithRegistersModel, transformers.Dinov2WithRegistersConfig, (*_DINO2, "num_register_tokens"),
                                                                                             "first",  None,             True,  IMAGENET_MEAN, IMAGENET_STD, BICUBIC),
    "dinov3_vit":            VisionKind(transformers.DINOv3ViTModel, transformers.DINOv3ViTConfig, _DINO3,
                                                                                             "first",  None,             True,  IMAGENET_MEAN, IMAGENET_STD, BILINEAR),
    "vit":                   VisionKind(transformers.ViTModel, transformers.ViTConfig, _VIT,
                                                                                             "first",  None,             False, HALF, HALF, BILINEAR),
}
# fmt: on
# whole models of image and text, by their vision tower's kind
WHOLE_MODELS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model"}
# kinds that people may try, and why they cannot be used
WITHOUT_GRID = {
    "resnet": "a ResNet has no patches",
    "convnext": "a ConvNeXt has no patches",
    "dinov3_convnext": "a ConvNeXt has no patches",
    "swin": "Swin merges patches, so that its grid shrinks from stage to stage",
    "swinv2": "Swin merges patches, so that its grid shrinks from stage to stage",
}


def vision_config(saved: dict[str, Any]) -> PretrainedConfig:
    """Build a vision tower's config from its config.json, or from that of a whole model of image and text.

    Fields that its kind does not list are ignored. A config without a model type is taken for CLIP's.

    Raises:
        ValueError: it is of a kind that is not in `VISION_KINDS`. For a wrong field, transformers has errors of its own.
    """
    kind = str(saved.get("model_type", "clip_vision_model"))[:40]
    known = ", ".join((*VISION_KINDS, *WHOLE_MODELS))
    if kind in WITHOUT_GRID:
        raise ValueError(f"{WITHOUT_GRID[kind]}; take one of {known}")
    if kind not in VISION_KINDS and kind not in WHOLE_MODELS:
        raise ValueError(f"is a {kind} model; only {known} are supported here")
    if isinstance(saved.get("vision_config"), dict):
        saved = saved["vision_config"]
    row = VISION_KINDS[WHOLE_MODELS.get(kind, kind)]
    return row.config(**{name: saved[name] for name in row.fields if name in saved}, attn_implementation=ATTENTION)


def model_arguments(config: PretrainedConfig) -> dict[str, Any]:
    """Further arguments of the model's class: a plain ViT's pooler is not used, and many folders have none."""
    return {"add_pooling_layer": False} if config.model_type == "vit" else {}


class ImageFeatures(NamedTuple):
    """Output of the image encoder: cls [B, D], the class token; grid [B, G, D], the patches."""

    cls: Tensor
    grid: Tensor


class ImagePreparation(NamedTuple):
    """How images were prepared for an encoder's training.

    size: side of the square in pixels. mean, std: per channel, of values from 0 to 1. resample: PIL's number of the filter.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int


class ImageEncoder(nn.Module):
    """Encode pixels into the class token and the patch grid.

    Every token has passed the final layer norm; there is no projection to a space shared with texts. The class token of a
    kind that has none is the output of its pooling head. `VISION_KINDS` lists the kinds.

    The published code returns the first *patch*, layer-normed twice, in place of the class token. Only len_prefix > 0
    reads it. We return the class token.

    A fixed encoder has no gradient and stays in evaluation mode, even if `train()` is called on the whole model. It computes
    in float32, also under autocast, so that its features are the same whether they are cached or not.

    Args:
        vision: a vision tower of one of `VISION_KINDS`.
        fixed: freeze the weights (the paper's setting).
        preparation: how its training images were prepared (default: its kind's, at its config's size).
    """

    def __init__(self, vision: PreTrainedModel, fixed: bool = True, preparation: ImagePreparation | None = None):
        super().__init__()
        self.vision = vision.requires_grad_(not fixed)
        self.fixed = fixed
        self.kind = VISION_KINDS[vision.config.model_type]
        self.preparation = preparation or default_preparation(vision.config)
        for name, parameter in vision.named_parameters():
            if name.endswith("mask_token"):  # used in self-supervised training only
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
        if normalization == "own":
            return self.preparation.mean, self.preparation.std
        return IMAGENET_MEAN, IMAGENET_STD

    def config_fields(self) -> dict[str, Any]:
        """This encoder's fields in an exported model's config.json: the known fields of its config, and its preparation."""
        fields = self.vision.config.to_dict()
        known = {name: fields[name] for name in ("model_type", *self.kind.fields) if name in fields}
        return known | {"preparation": self.preparation._asdict()}

    def freeze_pooling(self) -> None:
        """Do not train the pooling head, in a model that does not use the class token."""
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
