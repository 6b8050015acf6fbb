"""How images are prepared for each kind of encoder: by its kind's default, and by the folder's preprocessor_config.json."""

import json

import pytest
from PIL.Image import Resampling

from tests.tiny_encoders import KINDS, save
from utils.data.image_encoder_weights import load_image_encoder

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


def test_every_kind_is_here():
    assert DEFAULTS.keys() == KINDS.keys() - {"clip", "siglip", "siglip without head", "siglip2"}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults(kind, tmp_path):
    save(kind, tmp_path)
    size, (mean, std), resample, _ = DEFAULTS[kind]
    assert load_image_encoder(str(tmp_path)).preparation == (size, mean, std, resample)


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize(
    ("changed", "side", "normalized"),
    [({}, 56, True), ({"do_center_crop": False}, 70, True), ({"do_normalize": False}, 56, False)],
)
def test_preprocessor_file(kind, tmp_path, changed, side, normalized):
    """The crop's side where images were cropped, else the resize's; CLIP keeps the paper's bilinear filter."""
    save(kind, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(FILE | changed))
    usual, _, _, own_size = DEFAULTS[kind]
    statistics = ((0.1, 0.2, 0.3), (0.4, 0.6, 0.8)) if normalized else ((0.0,) * 3, (1.0,) * 3)
    resample = Resampling.BILINEAR if kind == "clip_vision_model" else Resampling.LANCZOS
    found = load_image_encoder(str(tmp_path)).preparation
    assert found == (side if own_size else usual, *statistics, resample)
