"""How images were prepared for an encoder's training: read from the folder's preprocessor_config.json, as plain JSON."""

from typing import Any

from PIL import Image
from transformers import PretrainedConfig

from models.image_encoder import VISION_KINDS, ImagePreparation, default_preparation
from utils.data.pretrained import find_file
from utils.errors import InputError
from utils.files import read_json

FILE = "preprocessor_config.json"
LARGEST = 4096  # side of an image, in pixels


def read_preparation(name: str, config: PretrainedConfig, source: str) -> ImagePreparation:
    """The preparation of a folder or Hugging Face id; its kind's usual one where the file, or a field of it, is missing.

    Pictures are always stretched to a square, also where an encoder's training cropped them: the grid then covers the
    whole picture. CLIP keeps the paper's bilinear filter.

    Args:
        config: the vision tower's config.
        source: for error messages.

    Raises:
        InputError: the file is malformed, or its images are smaller than one patch.
    """
    usual, kind = default_preparation(config), VISION_KINDS[config.model_type]
    path = find_file(name, FILE)
    if path is None:
        return usual
    try:
        saved = read_json(path)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    source = f"{source}: {FILE}"
    if not isinstance(saved, dict):
        raise InputError(f"{source}: a JSON object was expected; take the model's own file")
    preparation = ImagePreparation(
        size=_side(saved, usual.size, source) if kind.own_size else usual.size,
        mean=saved.get("image_mean", usual.mean),
        std=saved.get("image_std", usual.std),
        resample=usual.resample if config.model_type == "clip_vision_model" else saved.get("resample", usual.resample),
    )
    if saved.get("do_normalize") is False:
        preparation = preparation._replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    return checked_preparation(preparation, config, source)


def checked_preparation(preparation: ImagePreparation, config: PretrainedConfig, source: str) -> ImagePreparation:
    """The preparation as a file has it, in the types it should have; InputError, with `source`, for what cannot be."""
    size, resample = preparation.size, preparation.resample
    if type(size) is not int or not 1 <= size <= LARGEST:
        raise InputError(f"{source}: size {str(size)[:60]} is not a number of pixels from 1 to {LARGEST}")
    if size < config.patch_size:
        raise InputError(f"{source}: images of {size} pixels are smaller than one patch of {config.patch_size}")
    mean = _numbers("image_mean", preparation.mean, source)
    std = _numbers("image_std", preparation.std, source)
    if min(std) <= 0:
        raise InputError(f"{source}: image_std holds a number that is not positive; take the model's own file")
    if type(resample) is not int or resample not in list(Image.Resampling):
        raise InputError(f"{source}: resample {str(resample)[:40]!r} is no filter of Pillow (0 to 5)")
    return ImagePreparation(size, mean, std, resample)


def _side(saved: dict[str, Any], usual: int, source: str) -> int:
    """Side of the square that the training saw: the crop's where it cropped, else the resize's."""
    field = "crop_size" if saved.get("crop_size") and saved.get("do_center_crop", True) else "size"
    value = saved.get(field, usual)
    sides = (
        [value[key] for key in ("height", "width", "shortest_edge") if key in value]
        if isinstance(value, dict)
        else [value]
    )
    if not sides or any(type(side) is not int or not 1 <= side <= LARGEST for side in sides) or len(set(sides)) > 1:
        raise InputError(f"{source}: {field} {str(value)[:60]} is not the size of a square of 1 to {LARGEST} pixels")
    return sides[0]


def _numbers(field: str, value: Any, source: str) -> tuple[float, ...]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(type(number) in (int, float) and abs(number) < LARGEST for number in value)
    ):
        raise InputError(f"{source}: {field} {str(value)[:60]} is not three numbers; take the model's own file")
    return tuple(map(float, value))
