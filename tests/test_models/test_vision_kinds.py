"""Every kind of image encoder: its features are those of transformers' own forward, from the folder as downloads have it."""

import json
import sys
import types

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.conftest import TINY_VIT
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


@pytest.mark.parametrize("name", KINDS)
def test_features(name, tmp_path):
    vision = save(name, tmp_path)
    encoder = load_image_encoder(str(tmp_path))
    pixels = torch.randn(2, 3, encoder.image_size, encoder.image_size)
    features = encoder(pixels)
    cls, grid = expected(name, vision, pixels)
    assert features.grid.shape == (2, 9, 24) and encoder.patches == 9 and encoder.width == 24
    torch.testing.assert_close(features.cls, cls, atol=1e-6, rtol=0)
    torch.testing.assert_close(features.grid, grid, atol=1e-6, rtol=0)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert load_image_encoder(str(tmp_path), from_scratch=True)(pixels).grid.shape == (2, 9, 24)


# kind -> how the hub's files, of several versions of transformers, put a name in front of the tower's weights
PREFIXES = {
    "vit": ("", "vit."),
    "dinov2": ("", "dinov2."),
    "dinov2_with_registers": ("", "dinov2_with_registers."),
    "dinov3_vit": ("",),
    "siglip_vision_model": ("", "vision_model."),
    "siglip2_vision_model": ("", "vision_model."),
    "clip_vision_model": ("", "vision_model."),
}
PREFIXED = [(name, prefix) for name, prefixes in PREFIXES.items() for prefix in prefixes]


def renamed(folder, prefix: str, left_out: str):
    """Rewrite a folder's weights as a model with a classifier has them; leave out what has `left_out` in its name."""
    state = load_file(folder / "model.safetensors")
    state = {f"{prefix}{name}": tensor for name, tensor in state.items() if not left_out or left_out not in name}
    more = {"classifier.weight": torch.zeros(2, 24), f"{prefix}embeddings.position_ids": torch.arange(9)}
    save_file(state | more, folder / "model.safetensors")


@pytest.mark.parametrize("name, prefix", PREFIXED)
def test_names_of_the_hub(name, prefix, tmp_path):
    """Nothing is missing and nothing is fresh: the features are the same; a plain ViT needs no pooler."""
    vision = save(name, tmp_path)
    renamed(tmp_path, prefix, "pooler" if name == "vit" else "")
    encoder = load_image_encoder(str(tmp_path))
    pixels = torch.randn(2, 3, encoder.image_size, encoder.image_size)
    torch.testing.assert_close(encoder(pixels).grid, expected(name, vision, pixels)[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("prefix, left_out", [("module.", ""), ("", "layer.1."), ("", "patch_embedding")])
def test_weights_that_are_missing(name, prefix, left_out, tmp_path):
    save(name, tmp_path)
    left_out = left_out.replace("layer.", "layers.") if "vision_model" in name else left_out
    renamed(tmp_path, prefix, left_out)
    with pytest.raises(InputError, match="^--clip_model .*: lacks weights of "):
        load_image_encoder(str(tmp_path))


@pytest.mark.parametrize("name", KINDS)
def test_trained_weights_have_gradients(name, tmp_path):
    """Where the class token is not read: a weight without a gradient would stop a training on several GPUs."""
    save(name, tmp_path)
    encoder = load_image_encoder(str(tmp_path), fixed=False)
    encoder.freeze_pooling()
    encoder(torch.randn(1, 3, encoder.image_size, encoder.image_size)).grid.pow(2).sum().backward()
    lacking = [name for name, weight in encoder.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not lacking


def test_siglip_of_384_pixels_has_729_patches(tmp_path):
    """384 / 14 = 27.4: the rest is cut, as transformers does."""
    config = transformers.SiglipVisionConfig(**VIT | {"image_size": 384})
    vision = transformers.SiglipVisionModel(config).eval()
    vision.save_pretrained(tmp_path)
    encoder, pixels = load_image_encoder(str(tmp_path)), torch.randn(1, 3, 384, 384)
    assert encoder.image_size == 384 and encoder.patches == 729
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels).grid, vision(pixels).last_hidden_state, atol=1e-6, rtol=0)


def test_preparation_is_read_as_json(tmp_path):
    save("dinov2", tmp_path)
    prepared = {"size": {"shortest_edge": 60}, "crop_size": {"height": 56, "width": 56}, "resample": 1}
    prepared |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "image_processor_type": "Unknown"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    encoder = load_image_encoder(str(tmp_path))
    assert encoder.preparation == (56, (0.1, 0.2, 0.3), (1, 2, 3), 1)
    assert encoder.statistics("own") == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert encoder.statistics("imagenet")[0] == (0.485, 0.456, 0.406)
    assert encoder(torch.zeros(1, 3, 56, 56)).grid.shape[1] == 16


@pytest.mark.parametrize(
    "field",
    [
        {"crop_size": {"height": 56, "width": 28}},
        {"image_mean": [1, 2]},
        {"resample": 9},
    ],
)
def test_bad_preparation(tmp_path, field):
    save("dinov2", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(field))
    with pytest.raises(InputError, match="preprocessor_config.json does not give .*; take the model's own file"):
        load_image_encoder(str(tmp_path))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"model_type": "resnet"}, "config.json: a ResNet has no patches; take one of clip_vision_model"),
        ({"model_type": "swin"}, "config.json: Swin merges patches"),
        ({"model_type": "bert"}, "config.json: is a bert model; only .*dinov3_vit"),
        ({"model_type": "clip_text_model"}, "config.json: is a clip_text_model model; only"),
        (VIT | {"model_type": "vit", "hidden_size": "wide"}, "config.json: .*hidden_size.*hf download"),
        (VIT | {"model_type": "clip_vision_model", "num_attention_heads": 5}, "config.json: .*heads.*hf download"),
    ],
)
def test_what_is_no_encoder(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_image_encoder(str(tmp_path), from_scratch=True)


# ---- CLIP in OpenAI's names ----------------------------------------------------------------------------------------------


def openai_tower() -> tuple[transformers.CLIPVisionModel, dict[str, torch.Tensor]]:
    vision = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TINY_VIT | {"num_attention_heads": 1}))
    return vision, trained_state_dict(vision)


def same_weights(encoder, vision: transformers.CLIPVisionModel) -> bool:
    expected, found = vision.state_dict(), encoder.vision.state_dict()
    return expected.keys() == found.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_state_dict_in_openais_names(tmp_path, suffix):
    vision, state = openai_tower()
    state = {f"visual.{name}": tensor for name, tensor in state.items()} | {"logit_scale": torch.ones(1)}
    (torch.save if suffix == "pt" else save_file)(state, tmp_path / f"clip.{suffix}")
    assert same_weights(load_image_encoder(str(tmp_path / f"clip.{suffix}")), vision)


def test_openais_name_goes_through_its_package(monkeypatch):
    """Its `load` checks the hash of what it downloads."""
    vision, state = openai_tower()
    asked = []

    def load(name, **options):
        asked.append((name, options))
        if "L/14" in name:
            raise RuntimeError("Model has been downloaded but the SHA256 checksum does not not match")
        visual = types.SimpleNamespace(state_dict=lambda: state | {"proj": torch.ones(2, 2)})
        return types.SimpleNamespace(visual=visual), None

    monkeypatch.setitem(sys.modules, "clip", types.SimpleNamespace(load=load))
    assert same_weights(load_image_encoder("ViT-B/16"), vision)
    assert asked == [("ViT-B/16", {"device": "cpu", "jit": False})]
    with pytest.raises(
        InputError, match="--clip_model ViT-L/14: OpenAI's package cannot .*SHA256 checksum.*hf download"
    ):
        load_image_encoder("ViT-L/14")
