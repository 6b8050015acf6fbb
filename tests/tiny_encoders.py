"""Tiny random image encoders of every kind, saved as downloads have them: 3 x 3 patches of 14 pixels, of width 24."""

from pathlib import Path

import torch
import transformers

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
SIZES |= {"hidden_act": "relu", "layer_norm_eps": 0.01}  # not the defaults
VIT = SIZES | {"intermediate_size": 32, "image_size": 48}  # 48 = 3 * 14 + 6
SIGLIP2 = SIZES | {"intermediate_size": 32, "num_patches": 9}
DINO2 = SIZES | {"mlp_ratio": 2, "image_size": 48}
REGISTERS = {"num_register_tokens": 3}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
NO_HEAD = VIT | {"vision_use_head": False}


def whole(kind: str, vision: dict):
    config = getattr(transformers, f"{kind}Config")(text_config=TEXT, vision_config=vision)
    model = getattr(transformers, f"{kind}Model")(config)
    return model, model.vision_model


def tower(kind: str, config: str, fields: dict, **more):
    model = getattr(transformers, kind)(getattr(transformers, config)(**fields), **more)
    return model, model


# name -> what is saved, its vision tower; number of tokens before the grid
KINDS = {
    "clip_vision_model": (lambda: tower("CLIPVisionModel", "CLIPVisionConfig", VIT), 1),
    "clip": (lambda: whole("CLIP", VIT), 1),
    "siglip_vision_model": (lambda: tower("SiglipVisionModel", "SiglipVisionConfig", VIT), 0),
    "siglip without head": (lambda: tower("SiglipVisionModel", "SiglipVisionConfig", NO_HEAD), 0),
    "siglip": (lambda: whole("Siglip", VIT), 0),
    "siglip2_vision_model": (lambda: tower("Siglip2VisionModel", "Siglip2VisionConfig", SIGLIP2), 0),
    "siglip2": (lambda: whole("Siglip2", SIGLIP2), 0),
    "dinov2": (lambda: tower("Dinov2Model", "Dinov2Config", DINO2), 1),
    "dinov2_with_registers": (
        lambda: tower("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINO2 | REGISTERS),
        4,
    ),
    "dinov3_vit": (lambda: tower("DINOv3ViTModel", "DINOv3ViTConfig", VIT | REGISTERS), 4),
    "vit": (lambda: tower("ViTModel", "ViTConfig", VIT), 1),
}


def save(name: str, folder: Path):
    """Write an encoder's folder; returns its vision tower."""
    torch.manual_seed(0)
    model, vision = KINDS[name][0]()
    with torch.no_grad():
        for parameter in model.parameters():  # layer norms and scales that say something
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    return vision
