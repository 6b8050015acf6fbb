"""Every kind of image encoder: its features are those of transformers' own forward, from the folder as downloads have it,
and its images are prepared as the folder says."""

import json
import sys
from unittest.mock import Mock

import pytest
import torch
import transformers
from PIL.Image import Resampling
from safetensors.torch import load_file, save_file
from torch import nn

from models.image_encoder import VISION_KINDS, ImageEncoder
from tests.conftest import GOLDEN, TINY_VIT
from tests.tiny_encoders import KINDS, VIT, save
from utils.data.image_encoder_weights import load_image_encoder, trained_state_dict
from utils.errors import InputError


@torch.no_grad()
def expected(name: str, vision, pixels):
    """Class token and grid by transformers alone."""
    if name.startswith("siglip2"):
        patches = pixels.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 4, 5, 1).reshape(2, 9, -1)
        output = vision(patches, torch.ones(2, 9, dtype=torch.long), torch.full((2, 2), 3))
    else:
        output = vision(pixels)
    tokens = output.last_hidden_state
    if name.startswith("clip"):
        tokens = vision.post_layernorm(tokens)
        assert torch.equal(tokens[:, 0], output.pooler_output)
    skipped = KINDS[name][1]
    if skipped:
        return tokens[:, 0], tokens[:, skipped:]
    return (tokens.mean(1) if output.pooler_output is None else output.pooler_output), tokens


@pytest.mark.parametrize("kind", VISION_KINDS)
def test_every_field_of_a_config_is_read(kind):
    """But for those of a backbone's outputs, of a pooler that nobody reads, and of every model."""
    row = VISION_KINDS[kind]
    others = {"apply_layernorm", "reshape_hidden_states", "stage_names", "out_features", "out_indices", "model_type"}
    others |= {"encoder_stride", "pooler_output_size", "pooler_act"} | transformers.PretrainedConfig().to_dict().keys()
    assert row.config().to_dict().keys() - row.fields - others == set()


# kind -> what the hub's files, of several versions of transformers, put in front of the names of the tower's weights
PREFIXES = dict.fromkeys(("siglip_vision_model", "siglip2_vision_model", "clip_vision_model"), "vision_model.")
PREFIXES |= {name: f"{name}." for name in ("vit", "dinov2", "dinov2_with_registers")} | {"dinov3_vit": ""}


@pytest.mark.parametrize("name", KINDS)
def test_features(name, tmp_path):
    """Under transformers' names of the weights and under the hub's, where a plain ViT needs no pooler."""
    vision = save(name, tmp_path)
    encoder = load_image_encoder(str(tmp_path))
    encoders, pixels = [encoder], torch.randn(2, 3, encoder.image_size, encoder.image_size)
    if name in PREFIXES:  # as a model with a classifier has them
        state = load_file(tmp_path / "model.safetensors")
        kept = {key: tensor for key, tensor in state.items() if name != "vit" or "pooler" not in key}
        state = {"classifier.weight": torch.zeros(2, 24)} | {PREFIXES[name] + key: kept[key] for key in kept}
        save_file(state | {f"{PREFIXES[name]}embeddings.position_ids": torch.arange(9)}, tmp_path / "model.safetensors")
        encoders.append(load_image_encoder(str(tmp_path)))
    cls, grid = expected(name, vision, pixels)
    for encoder in encoders:
        features = encoder(pixels)
        assert features.grid.shape == (2, 9, 24) and encoder.patches == 9 and encoder.width == 24
        torch.testing.assert_close(features.cls, cls, atol=1e-6, rtol=0)
        torch.testing.assert_close(features.grid, grid, atol=1e-6, rtol=0)
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert load_image_encoder(str(tmp_path), from_scratch=True)(pixels).grid.shape == (2, 9, 24)


@pytest.mark.parametrize("name", KINDS)
def test_trained_weights_have_gradients(name, tmp_path):
    """Where the class token is not read: a weight without a gradient would stop a training on several GPUs."""
    save(name, tmp_path)
    encoder = load_image_encoder(str(tmp_path), fixed=False)
    encoder.freeze_pooling()
    encoder(torch.randn(1, 3, encoder.image_size, encoder.image_size)).grid.pow(2).sum().backward()
    lacking = [name for name, weight in encoder.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not lacking


@pytest.mark.parametrize("fixed", [True, False])
def test_a_fixed_encoder_has_neither_gradients_nor_a_training_mode(fixed):
    encoder = ImageEncoder(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TINY_VIT)), fixed)
    for mode in (True, False):
        nn.ModuleList([encoder]).train(mode)
        assert all(module.training == (mode and not fixed) for module in encoder.modules())
    assert all(parameter.requires_grad != fixed for parameter in encoder.parameters())
    pixels = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        grid = encoder(pixels).grid
    assert grid.requires_grad != fixed
    assert grid.float().equal(encoder(pixels).grid) == fixed  # float32, so that cached features are the same


# ---- how images are prepared -----------------------------------------------------------------------------------------

CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3
# kind -> side in pixels, statistics, filter, and whether preprocessor_config.json may give another side
DEFAULTS = {
    "clip_vision_model": (48, CLIP, Resampling.BILINEAR, False),
    "siglip_vision_model": (48, HALF, Resampling.BICUBIC, False),
    "siglip2_vision_model": (42, HALF, Resampling.BILINEAR, False),  # 9 patches of 14 pixels
    "dinov2": (48, IMAGENET, Resampling.BICUBIC, True),
    "dinov2_with_registers": (48, IMAGENET, Resampling.BICUBIC, True),
    "dinov3_vit": (48, IMAGENET, Resampling.BILINEAR, True),
    "vit": (48, HALF, Resampling.BILINEAR, False),
}
FILE = {
    "size": {"shortest_edge": 70},
    "crop_size": {"height": 56, "width": 56},
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.6, 0.8],
    "resample": int(Resampling.LANCZOS),
}


@pytest.mark.parametrize("kind", VISION_KINDS)
def test_preparation(kind, tmp_path):
    """The kind's where the folder has no preprocessor_config.json. Of that file the crop's side counts where images were
    cropped, else the resize's, if the positions fit any; CLIP keeps the paper's bilinear filter."""
    save(kind, tmp_path)
    usual, (mean, std), resample, own_size = DEFAULTS[kind]
    assert load_image_encoder(str(tmp_path)).preparation == (usual, mean, std, resample)
    resample = Resampling.BILINEAR if kind == "clip_vision_model" else Resampling.LANCZOS
    given = FILE["image_mean"], FILE["image_std"]
    for changed, side, (mean, std) in (
        ({"image_processor_type": "Unknown"}, 56, given),
        ({"do_center_crop": False}, 70, given),
        ({"do_normalize": False}, 56, ([0.0] * 3, [1.0] * 3)),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(FILE | changed))
        encoder = load_image_encoder(str(tmp_path))
        side = side if own_size else usual
        assert encoder.preparation == (side, tuple(mean), tuple(std), resample)
        assert encoder.statistics("own") == (tuple(mean), tuple(std)) and encoder.statistics("imagenet") == IMAGENET
        assert encoder(torch.zeros(1, 3, side, side)).grid.shape[1] == encoder.patches


BAD_FIELDS = [{"crop_size": {"height": 56, "width": 28}}, {"image_mean": [1, 2]}, {"resample": 9}]


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_bad_preparation(tmp_path, field):
    save("dinov2", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(field))
    with pytest.raises(InputError, match="preprocessor_config.json does not give .*; take the model's own file"):
        load_image_encoder(str(tmp_path))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"model_type": "resnet"}, "config.json: a ResNet has no patches; take one of clip_vision_model"),
        ({"model_type": "bert"}, "config.json: is a bert model; only .*dinov3_vit"),
        (VIT | {"model_type": "clip_vision_model", "num_attention_heads": 5}, "config.json: .*heads.*hf download"),
    ],
)
def test_what_is_no_encoder(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_image_encoder(str(tmp_path), from_scratch=True)


# ---- CLIP in OpenAI's names ----------------------------------------------------------------------------------------------

OPENAI = load_file(GOLDEN / "image_encoder" / "weights.safetensors")


def check_weights(encoder: ImageEncoder) -> None:
    found = trained_state_dict(encoder.vision)
    torch.testing.assert_close(found, {name: OPENAI[name] for name in found}, rtol=0, atol=0)


@pytest.mark.parametrize(("suffix", "save_file"), [("pt", torch.save), ("safetensors", save_file)])
def test_a_state_dict_in_openais_names(tmp_path, suffix, save_file):
    path = tmp_path / f"clip.{suffix}"
    save_file({f"visual.{name}": tensor for name, tensor in OPENAI.items()} | {"logit_scale": torch.ones(1)}, path)
    check_weights(load_image_encoder(str(path)))


def test_openais_name_goes_through_its_package(monkeypatch):
    """Its `load` checks the hash of what it downloads."""
    visual = Mock(state_dict=lambda: OPENAI)
    clip = Mock(load=Mock(return_value=(Mock(visual=visual), None)))
    monkeypatch.setitem(sys.modules, "clip", clip)
    check_weights(load_image_encoder("ViT-B/16"))
    clip.load.assert_called_once_with("ViT-B/16", device="cpu", jit=False)
    clip.load.side_effect = RuntimeError("Model has been downloaded but the SHA256 checksum does not not match")
    message = "--clip_model ViT-L/14: OpenAI's package cannot .*SHA256 checksum.*hf download"
    with pytest.raises(InputError, match=message):
        load_image_encoder("ViT-L/14")
