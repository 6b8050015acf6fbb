"""Load an image encoder from Hugging Face's or OpenAI's files, with the preparation of its images; rename CLIP's weights."""

import itertools
import os
import sys
from collections.abc import Iterable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, PretrainedConfig, PreTrainedModel

from models.config import ATTENTION
from models.image_encoder import (
    VISION_KINDS,
    ImageEncoder,
    ImagePreparation,
    default_preparation,
    model_arguments,
    vision_config,
)
from utils.data.pretrained import check_finite, find_config, find_file, load_pretrained
from utils.data.untrusted_files import read_state_dict
from utils.errors import InputError, brief
from utils.files import read_json

# OpenAI's names of the vision tower's parts -> transformers' names.
OPENAI_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
OPENAI_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OPENAI_MODELS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
OPENAI_HEAD_WIDTH = 64
PREPARATION_FILE = "preprocessor_config.json"
WEIGHTS_REMEDY = (
    "give the folder of a downloaded model (`hf download openai/clip-vit-base-patch16`) or a Hugging Face id"
)
OPENAI_REMEDY = "give the id openai/clip-vit-base-patch16, or the name ViT-B/16 with OpenAI's package"


def openai_names(layers: int) -> dict[str, list[str]]:
    """OpenAI's name of each tensor -> transformers' name, or the three names of the stacked query, key and value."""
    names = {openai: [name] for openai, name in OPENAI_NAMES.items()}
    for i in range(layers):
        openai, block = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
        for part in ("weight", "bias"):
            names[f"{openai}.attn.in_proj_{part}"] = [f"{block}.self_attn.{letter}_proj.{part}" for letter in "qkv"]
            for name, target in OPENAI_BLOCK_NAMES.items():
                names[f"{openai}.{name}.{part}"] = [f"{block}.{target}.{part}"]
    return names


def trained_state_dict(vision: PreTrainedModel) -> dict[str, Tensor]:
    """An encoder's weights for a checkpoint: CLIP's under OpenAI's names, as in the authors', others under transformers'."""
    state = vision.state_dict()
    if not isinstance(vision, CLIPVisionModel):
        return state
    names = openai_names(vision.config.num_hidden_layers)
    return {
        openai: torch.cat([state[name] for name in parts]) if len(parts) > 1 else state[parts[0]]
        for openai, parts in names.items()
    }


def load_trained_weights(vision: PreTrainedModel, state: dict[str, Tensor], source: str) -> None:
    """Copy a checkpoint's weights (see `trained_state_dict`) into `vision`.

    Raises:
        InputError: weights are missing, unknown or of another shape; the message names them.
    """
    shapes = {name: tensor.shape for name, tensor in trained_state_dict(vision).items()}
    state = {name: tensor for name, tensor in state.items() if name != "proj"}  # CLIP's projection, which is not used
    problems = {
        "missing": sorted(shapes.keys() - state.keys()),
        "unknown": sorted(state.keys() - shapes.keys()),
        "of another shape": [name for name, shape in shapes.items() if name in state and state[name].shape != shape],
    }
    for problem, names in problems.items():
        if names:
            raise InputError(f"{source}: image encoder weights {problem}: {', '.join(names[:5])} ({len(names)} in all)")
    if isinstance(vision, CLIPVisionModel):
        parts = openai_names(vision.config.num_hidden_layers)
        pairs = (zip(parts[name], tensor.chunk(len(parts[name])), strict=True) for name, tensor in state.items())
        state = dict(itertools.chain.from_iterable(pairs))
    vision.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    check_finite(vision, f"{source}: image encoder", "use another file")


def load_image_encoder(name: str, fixed: bool = True, from_scratch: bool = False) -> ImageEncoder:
    """Build the image encoder.

    Args:
        name: a Hugging Face id or folder of one of `VISION_KINDS` (`openai/clip-vit-base-patch16`), an OpenAI name
            (`ViT-B/16`; needs the `clip` package), or the path of a state dict in OpenAI's names. OpenAI's own .pt files
            are TorchScript archives, which can hold code: only the package reads them.
        fixed: no gradient, always in evaluation mode.
        from_scratch: random weights; the sizes come from the folder's config.json.

    Raises:
        InputError: there is no model of this name, it has no grid of patches, or its weights do not fit.
    """
    if not from_scratch and name in OPENAI_MODELS:
        return ImageEncoder(vision_from_openai(_load_openai_package(name), source=name), fixed)
    if not from_scratch and os.path.isfile(name):
        return ImageEncoder(vision_from_openai(read_state_dict(name, OPENAI_REMEDY), source=name), fixed)
    source = f"--clip_model {name}"
    saved = find_config(name, source, WEIGHTS_REMEDY)
    try:
        config = vision_config(saved)
        preparation = read_preparation(name, config, source)
        kind, arguments = VISION_KINDS[config.model_type].model, model_arguments(config)
        if from_scratch:
            return ImageEncoder(kind(config, **arguments), fixed, preparation)
    except InputError:
        raise
    except Exception as error:  # transformers raises many kinds of error for a wrong field
        raise InputError(f"{source}: config.json: {brief(error)}; {WEIGHTS_REMEDY}") from None
    vision, missing, _ = load_pretrained(kind, name, config, source, WEIGHTS_REMEDY, **arguments)
    missing = sorted(part for part in missing if not part.endswith("mask_token"))
    if missing:
        what = "CLIP's vision tower" if kind is CLIPVisionModel else f"a {config.model_type}"
        raise InputError(f"{source}: lacks weights of {what} ({', '.join(missing[:3])}, ...); {WEIGHTS_REMEDY}")
    return ImageEncoder(vision, fixed, preparation)


def vision_from_openai(state: dict[str, Tensor], heads: int | None = None, source: str = "weights") -> CLIPVisionModel:
    """Build a CLIPVisionModel from a state dict with OpenAI's names. The sizes follow from the tensors' shapes.

    Args:
        state: names with or without the prefix `visual.` or `encoder.`; the text tower and `proj` are ignored.
        heads: number of attention heads (default: width / 64, as in OpenAI's models).
        source: name of the weights in error messages.

    Raises:
        InputError: weights are missing, unknown or of another shape.
    """
    vision_prefix = "visual." if any(name.startswith("visual.") for name in state) else ""
    state = {
        name.removeprefix(vision_prefix).removeprefix("encoder."): tensor
        for name, tensor in state.items()
        if name.startswith(vision_prefix)
    }
    try:
        width, _, patch, _ = state["conv1.weight"].shape
        grid = round((state["positional_embedding"].shape[0] - 1) ** 0.5)
        layers = len({name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")})
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            num_hidden_layers=layers,
            num_attention_heads=heads or max(width // OPENAI_HEAD_WIDTH, 1),
            image_size=grid * patch,
            patch_size=patch,
            hidden_act="quick_gelu",
            attn_implementation=ATTENTION,
        )
        vision = CLIPVisionModel(config)
    except Exception as error:  # other weights lack a name, or have shapes that fit no transformer
        raise InputError(
            f"{source}: not the weights of a CLIP vision transformer in OpenAI's names ({brief(error)}); {OPENAI_REMEDY}"
        ) from None
    load_trained_weights(vision, state, source)
    return vision


def _load_openai_package(name: str) -> dict[str, Tensor]:
    """The vision tower's weights in OpenAI's names, by OpenAI's package, which checks the hash of what it downloads."""
    if name.startswith("RN"):
        raise InputError(f"--clip_model {name}: a ResNet has no patch grid; take a ViT, e.g. ViT-B/16")
    if "torchvision" in sys.modules and sys.modules["torchvision"] is None:  # hidden from others, but `clip` needs it
        del sys.modules["torchvision"]
    try:
        import clip
    except (ImportError, RuntimeError):  # RuntimeError: torchvision was built for another torch
        raise InputError(
            f"--clip_model {name}: OpenAI's names need OpenAI's package: "
            "pip install git+https://github.com/openai/CLIP.git (PyPI's `clip` is something else), with the torchvision that "
            "fits torch"
        ) from None
    try:
        return clip.load(name, device="cpu", jit=False)[0].visual.state_dict()
    except Exception as error:  # the network, the disk, a wrong hash, or another package of this name
        raise InputError(
            f"--clip_model {name}: OpenAI's package cannot load it ({brief(error)}); {WEIGHTS_REMEDY}"
        ) from None


def read_preparation(name: str, config: PretrainedConfig, source: str) -> ImagePreparation:
    """The preparation of a folder or Hugging Face id; its kind's usual one if the file, or a field of it, is missing.

    Images are always stretched to a square, even if an encoder's training cropped them, so that the grid covers the whole
    image. For CLIP the filter is the paper's, bilinear.

    Args:
        config: the vision tower's config.
        source: for error messages.

    Raises:
        InputError: the file is malformed.
    """
    usual, kind = default_preparation(config), VISION_KINDS[config.model_type]
    path = find_file(name, PREPARATION_FILE)
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
            f"{source}: {PREPARATION_FILE} does not give the side of a square, three means and deviations, and a filter of Pillow "
            f"({brief(error)}); take the model's own file"
        ) from None
    if config.model_type == "clip_vision_model":
        preparation = preparation._replace(resample=usual.resample)
    if saved.get("do_normalize") is False:
        preparation = preparation._replace(mean=(0.0,) * 3, std=(1.0,) * 3)
    return preparation


def _side(saved: dict[str, Any], usual: int) -> int:
    """Side of the training's square images: the crop's if they were cropped, else the resize's."""
    cropped = saved.get("crop_size") and saved.get("do_center_crop", True)
    value = saved.get("crop_size" if cropped else "size", usual)
    sides = (value.get(key) for key in ("height", "width", "shortest_edge")) if isinstance(value, dict) else (value,)
    (side,) = {int(side) for side in sides if side is not None}
    return side


def _three(numbers: Iterable) -> tuple[float, ...]:
    red, green, blue = map(float, numbers)
    return red, green, blue
