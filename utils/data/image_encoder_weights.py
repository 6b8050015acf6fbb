"""Load the image encoder's weights from Hugging Face's or OpenAI's files, and rename them to OpenAI's names."""

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

# ---- Load the image encoder's weights from Hugging Face's or OpenAI's files, and rename them to OpenAI's -------------


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
WEIGHTS_REMEDY = (
    "give the folder of a downloaded model (`hf download openai/clip-vit-base-patch16`) or a Hugging Face id"
)
OPENAI_REMEDY = "give the id openai/clip-vit-base-patch16, or the name ViT-B/16 with OpenAI's package"


def openai_state_dict(vision: CLIPVisionModel) -> dict[str, Tensor]:
    """The weights under OpenAI CLIP's names, which published checkpoints use for a trained encoder."""
    state = vision.state_dict()
    renamed = {openai: state[ours] for openai, ours in OPENAI_NAMES.items() if ours in state}
    renamed["class_embedding"] = state["embeddings.class_embedding"]
    for i in range(vision.config.num_hidden_layers):
        openai, ours = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
        for part in ("weight", "bias"):
            renamed[f"{openai}.attn.in_proj_{part}"] = torch.cat(
                [state[f"{ours}.self_attn.{name}_proj.{part}"] for name in "qkv"]
            )
            for name, target in OPENAI_BLOCK_NAMES.items():
                renamed[f"{openai}.{name}.{part}"] = state[f"{ours}.{target}.{part}"]
    return renamed


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
    if from_scratch:
        config = _vision_config(name)
        preparation = read_preparation(name, config, f"--clip_model {name}")
        kind = VISION_KINDS[config.model_type]
        try:
            vision = kind.model(config, **model_arguments(config))
        except Exception as error:  # transformers raises many kinds of error for sizes that do not fit each other
            raise InputError(f"--clip_model {name}: config.json: {brief(error)}; {WEIGHTS_REMEDY}") from None
        return ImageEncoder(vision, fixed, preparation)
    if name in OPENAI_MODELS:
        return ImageEncoder(vision_from_openai(_load_openai_package(name), source=name), fixed)
    if os.path.isfile(name):
        return ImageEncoder(vision_from_openai(read_state_dict(name, OPENAI_REMEDY), source=name), fixed)
    source = f"--clip_model {name}"
    config = _vision_config(name)
    preparation = read_preparation(name, config, source)
    kind = VISION_KINDS[config.model_type].model
    vision, lacking, _ = load_pretrained(kind, name, config, source, WEIGHTS_REMEDY, **model_arguments(config))
    lacking = sorted(part for part in lacking if not part.endswith("mask_token"))
    if lacking:
        what = "CLIP's vision tower" if kind is CLIPVisionModel else f"a {config.model_type}"
        raise InputError(f"{source}: lacks weights of {what} ({', '.join(lacking[:3])}, ...); {WEIGHTS_REMEDY}")
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
            f"{source}: no weights of a CLIP vision transformer in OpenAI's names ({brief(error)}); {OPENAI_REMEDY}"
        ) from None
    load_openai_weights(vision, state, source)
    return vision


def trained_state_dict(vision: PreTrainedModel) -> dict[str, Tensor]:
    """A trained encoder's weights for a checkpoint: CLIP's under OpenAI's names, others under transformers'."""
    return openai_state_dict(vision) if isinstance(vision, CLIPVisionModel) else vision.state_dict()


def load_trained_weights(vision: PreTrainedModel, state: dict[str, Tensor], source: str) -> None:
    """Copy a checkpoint's weights (see `trained_state_dict`) into `vision`.

    Raises:
        InputError: weights are missing, unknown or of another shape; the message names them.
    """
    if isinstance(vision, CLIPVisionModel):
        return load_openai_weights(vision, state, source)
    _load_exactly(vision, {name: tensor.float() for name, tensor in state.items()}, [], source)


def load_openai_weights(vision: CLIPVisionModel, state: dict[str, Tensor], source: str) -> None:
    """Copy a state dict with OpenAI's names, without prefix, into `vision`.

    Raises:
        InputError: weights are missing, unknown or of another shape; the message names them.
    """
    renamed: dict[str, Tensor] = {}
    left_over = []
    for name, tensor in state.items():
        targets = _transformers_names(name)
        if targets is None:
            left_over += [] if name == "proj" else [name]
            continue
        parts = tensor.chunk(len(targets)) if tensor.dim() else (tensor,)
        for target, part in zip(targets, parts, strict=False):  # a missing part is reported below
            renamed[target] = part.float()
    _load_exactly(vision, renamed, left_over, source)


def _load_exactly(vision: PreTrainedModel, renamed: dict[str, Tensor], left_over: list[str], source: str) -> None:
    own = vision.state_dict()
    missing = sorted(set(own) - set(renamed))
    misshapen = sorted(name for name in set(own) & set(renamed) if own[name].shape != renamed[name].shape)
    left_over = left_over + sorted(set(renamed) - set(own))
    for problem, names in (("missing", missing), ("unknown", left_over), ("of another shape", misshapen)):
        if names:
            raise InputError(f"{source}: image encoder weights {problem}: {', '.join(names[:5])} ({len(names)} in all)")
    vision.load_state_dict(renamed)
    check_finite(vision, f"{source}: image encoder", "take another file")


def _transformers_names(name: str) -> list[str] | None:
    """transformers' names of one OpenAI tensor: three for the stacked query, key and value; None if unknown."""
    if name in OPENAI_NAMES:
        return [OPENAI_NAMES[name]]
    if not name.startswith("transformer.resblocks."):
        return None
    index, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
    for part in ("weight", "bias"):
        if rest == f"attn.in_proj_{part}":
            return [f"encoder.layers.{index}.self_attn.{letter}_proj.{part}" for letter in "qkv"]
        if rest.endswith(f".{part}") and rest.removesuffix(f".{part}") in OPENAI_BLOCK_NAMES:
            return [f"encoder.layers.{index}.{OPENAI_BLOCK_NAMES[rest.removesuffix(f'.{part}')]}.{part}"]
    return None


def _vision_config(name: str) -> PretrainedConfig:
    source = f"--clip_model {name}"
    saved = find_config(name, source, WEIGHTS_REMEDY)
    try:
        return vision_config(saved)
    except Exception as error:  # transformers raises many kinds of error for a wrong field
        raise InputError(f"{source}: config.json: {brief(error)}; {WEIGHTS_REMEDY}") from None


def _load_openai_package(name: str) -> dict[str, Tensor]:
    """The vision tower's weights in OpenAI's names, by OpenAI's package, which checks the hash of what it downloads."""
    if name.startswith("RN"):
        raise InputError(f"--clip_model {name}: a ResNet has no patch grid; take a ViT, e.g. ViT-B/16")
    if "torchvision" in sys.modules and sys.modules["torchvision"] is None:  # which `clip` does need
        del sys.modules["torchvision"]
    try:
        import clip
    except (ImportError, RuntimeError):  # RuntimeError: of a torchvision for another torch
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


# ---- How images were prepared for an encoder's training: read from the folder's --------------------------------------


FILE = "preprocessor_config.json"


def read_preparation(name: str, config: PretrainedConfig, source: str) -> ImagePreparation:
    """The preparation of a folder or Hugging Face id; its kind's usual one where the file, or a field of it, is missing.

    Images are always stretched to a square, also where an encoder's training cropped them: the grid then covers the
    whole image. CLIP keeps the paper's bilinear filter.

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
