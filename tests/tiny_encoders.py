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
WHOLE = ("CLIP", "Siglip", "Siglip2")  # with a text encoder

# name -> what transformers' names of its classes begin with; number of tokens before the grid; fields of the vision config
KINDS = {
    "clip_vision_model": ("CLIPVision", 1, VIT),
    "clip": ("CLIP", 1, VIT),
    "siglip_vision_model": ("SiglipVision", 0, VIT),
    "siglip without head": ("SiglipVision", 0, VIT | {"vision_use_head": False}),
    "siglip": ("Siglip", 0, VIT),
    "siglip2_vision_model": ("Siglip2Vision", 0, SIGLIP2),
    "siglip2": ("Siglip2", 0, SIGLIP2),
    "dinov2": ("Dinov2", 1, DINO2),
    "dinov2_with_registers": ("Dinov2WithRegisters", 4, DINO2 | REGISTERS),
    "dinov3_vit": ("DINOv3ViT", 4, VIT | REGISTERS),
    "vit": ("ViT", 1, VIT),
}


def save(name: str, folder: Path):
    """Write an encoder's folder; returns its vision tower."""
    kind, _, fields = KINDS[name]
    torch.manual_seed(0)
    config_class, model_class = (getattr(transformers, kind + part) for part in ("Config", "Model"))
    config = config_class(text_config=TEXT, vision_config=fields) if kind in WHOLE else config_class(**fields)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():  # layer norms and scales that say something
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    return model.vision_model if kind in WHOLE else model
