"""The kinds of vision transformer that can be the image encoder, and what differs among them."""

from typing import Any, NamedTuple

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from models.config_fields import ATTENTION
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
    class_token: "first" token; or "pooled": what the pooling head gives, or the mean of the patches in a model without.
    norm: the final layer norm that `last_hidden_state` still lacks; None where transformers applied it.
    own_size: the positions fit any size, so that preprocessor_config.json decides it and not config.json.
    mean, std: statistics of the training images, where the folder has no preprocessor_config.json.
    resample: filter of the resize, likewise.
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
# kinds that people may try, and why they do not fit
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
        raise ValueError(f"is of a {kind} model; only {known} are supported here")
    if isinstance(saved.get("vision_config"), dict):
        saved = saved["vision_config"]
    row = VISION_KINDS[WHOLE_MODELS.get(kind, kind)]
    return row.config(**{name: saved[name] for name in row.fields if name in saved}, attn_implementation=ATTENTION)


def model_arguments(config: PretrainedConfig) -> dict[str, Any]:
    """Further arguments of the model's class: a plain ViT's pooler is not read, and many folders have none."""
    return {"add_pooling_layer": False} if config.model_type == "vit" else {}
