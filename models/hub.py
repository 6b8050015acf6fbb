"""A whole model as one folder or one repository of the Hugging Face hub: `save_pretrained` and `from_pretrained`.

    config.json          sizes of every part; vision_config is null if the encoder is left out
    model.safetensors    every weight under its name in SEVLM; the output layer is tied to the embeddings and left out

The tokenizer, the run record and the model card are beside them; utils/share.py writes the whole folder.
"""

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from models.config import GPT2_FIELDS, SEVLMConfig, gpt2_config
from models.decoder import Explainer
from models.image_encoder import VISION_KINDS, ImageEncoder, ImagePreparation, model_arguments, vision_config
from utils.constants import EXPORT_TYPE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TIED = "decoder.lm_head.weight"
ENCODER = "image_encoder."


class ExportedModel:
    """Base class of SEVLM: saves a whole model, and loads one from a folder or a hub id."""

    def save_pretrained(self, folder: str | Path, include_encoder: bool = True, **more: Any) -> None:
        """Write config.json, with the further fields `more`, and model.safetensors into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        del state[TIED]
        encoder = self.image_encoder if include_encoder else None
        if encoder is None:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(ENCODER)}
        gpt2 = self.decoder.config.to_dict()
        config = {
            "model_type": EXPORT_TYPE,
            "architectures": ["SEVLM"],
            "decoder_config": {name: gpt2[name] for name in GPT2_FIELDS if name in gpt2},
            "sevlm_config": asdict(self.config),
            "vision_config": None if encoder is None else encoder.config_fields(),
            "fixed_encoder": self.image_encoder is None or self.image_encoder.fixed,
        }
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS, {"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(config | more, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, source: str | Path, image_encoder: ImageEncoder | None = None, **download: Any
    ) -> "ExportedModel":
        """The model of a folder or Hugging Face id, in evaluation mode on the CPU. Only JSON and safetensors are read.

        Args:
            image_encoder: the one that the model was trained with, if the folder holds none.
            download: arguments of `huggingface_hub.snapshot_download`, such as revision and token.

        Raises:
            ValueError: it is not an exported model, or its weights are missing, damaged, not finite or do not fit it.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = Path(snapshot_download(str(source), allow_patterns=[CONFIG, WEIGHTS], **download))
        try:
            fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            state = load_file(folder / WEIGHTS)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"{source}: {CONFIG} or {WEIGHTS} is missing or damaged ({error})") from None
        if not isinstance(fields, dict) or fields.get("model_type") != EXPORT_TYPE:
            raise ValueError(f"{source}: its {CONFIG} is not that of an exported SEVLM model")
        vision = fields.get("vision_config")
        if vision is None and image_encoder is None:
            raise ValueError(f"{source}: holds no image encoder; pass the one that the model was trained with")
        if vision is not None and image_encoder is not None:
            raise ValueError(f"{source}: holds its image encoder; pass no other")
        if vision is None:
            state |= {ENCODER + name: tensor for name, tensor in image_encoder.state_dict().items()}
        try:
            config = SEVLMConfig.from_fields(fields["sevlm_config"])
            decoder = Explainer(gpt2_config(fields["decoder_config"]), config)
            model = cls(config, decoder, image_encoder or _encoder(vision, bool(fields["fixed_encoder"])))
            state[TIED] = state["decoder.transformer.wte.weight"]
            model.load_state_dict(state, strict=True)
        except Exception as error:  # transformers raises many kinds of error for a wrong field
            raise ValueError(f"{source}: {WEIGHTS} and {CONFIG} do not fit ({error})") from error
        if problem := not_finite(model):
            raise ValueError(f"{folder / WEIGHTS}: {problem}")
        return model.eval()


def _encoder(fields: dict[str, Any], fixed: bool) -> ImageEncoder:
    config = vision_config(fields)
    vision = VISION_KINDS[config.model_type].model(config, **model_arguments(config))
    prepared = fields["preparation"]
    mean, std = (tuple(map(float, prepared[name])) for name in ("mean", "std"))
    return ImageEncoder(vision, fixed, ImagePreparation(prepared["size"], mean, std, prepared["resample"]))


def not_finite(module: nn.Module, skip: Collection[str] = ()) -> str | None:
    """A message that names the first weight with NaN or infinite values, but for those named in `skip`; None if there is none."""
    for name, weight in module.named_parameters():
        if weight.numel() and name not in skip and not torch.stack(weight.detach().aminmax()).isfinite().all():
            return f"{name} holds numbers that are not finite (NaN or infinite)"
    return None
