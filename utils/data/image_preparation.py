"""How images were prepared for an encoder's training: read from the folder's preprocessor_config.json, as plain JSON."""

from collections.abc import Iterable
from typing import Any

from PIL import Image
from transformers import PretrainedConfig

from models.image_encoder import VISION_KINDS, ImagePreparation, default_preparation
from utils.data.pretrained import find_file
from utils.errors import InputError, brief
from utils.files import read_json

FILE = "preprocessor_config.json"


def read_preparation(name: str, config: PretrainedConfig, source: str) -> ImagePreparation:
    """The preparation of a folder or Hugging Face id; its kind's usual one where the file, or a field of it, is missing.

    Pictures are always stretched to a square, also where an encoder's training cropped them: the grid then covers the
    whole picture. CLIP keeps the paper's bilinear filter.

    Args:
        config: the vision tower's config.
        source: for error messages.

    Raises:
        InputError: the file is malformed.
    """
    usual, kind = default_preparation(config), VISION_KINDS[config.model_type]
    path = find_file(name, FILE)
    if path is None:
        return usual
    try:
        saved = read_json(path)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    try:
        preparation = ImagePreparation(
            size=_side(saved, usual.size) if kind.own_size else usual.size,
            mean=_three(saved.get("image_mean", usual.mean)),
            std=_three(saved.get("image_std", usual.std)),
            resample=int(Image.Resampling(saved.get("resample", usual.resample))),
        )
    except Exception as error:  # a field may hold anything
        raise InputError(
            f"{source}: {FILE} does not give the side of a square, three means and deviations, and a filter of Pillow "
            f"({brief(error)}); take the model's own file"
        ) from None
    if config.model_type == "clip_vision_model":
        preparation = preparation._replace(resample=usual.resample)
    if saved.get("do_normalize") is False:
        preparation = preparation._replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    return preparation


def _side(saved: dict[str, Any], usual: int) -> int:
    """Side of the square that the training saw: the crop's where it cropped, else the resize's."""
    cropped = saved.get("crop_size") and saved.get("do_center_crop", True)
    value = saved.get("crop_size" if cropped else "size", usual)
    sides = (value.get(key) for key in ("height", "width", "shortest_edge")) if isinstance(value, dict) else (value,)
    (side,) = {int(side) for side in sides if side is not None}
    return side


def _three(numbers: Iterable) -> tuple[float, ...]:
    red, green, blue = map(float, numbers)
    return red, green, blue
