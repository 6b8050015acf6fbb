"""A whole model as one folder or one repository of the Hugging Face hub: `save_pretrained` and `from_pretrained`.

    config.json          sizes of every part; vision_config null where the encoder is left out
    model.safetensors    every weight under its name in SEVLM; the output layer is tied to the embeddings and left out

Tokenizer, settings and model card lie beside them; utils/share.py writes the whole folder.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PretrainedConfig

from models.config_fields import GPT2_FIELDS, gpt2_config
from models.decoder import Explainer
from models.finite_weights import not_finite
from models.heads import EmotionHead
from models.image_encoder import ImageEncoder, ImagePreparation
from models.vad_encoder import VADEncoder
from models.vision_kinds import VISION_KINDS, model_arguments, vision_config
from utils.constants import SHARED_TYPE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TIED = "decoder.lm_head.weight"
ENCODER = "image_encoder."


class SharedModel(PyTorchModelHubMixin):
    """What SEVLM inherits to be saved whole and loaded from a folder or a hub id.

    `from_pretrained(folder_or_id, image_encoder=None)` returns the model in evaluation mode, on the
    CPU. It reads JSON and safetensors only, and takes no file whose weights are not exactly the model's.
    """

    _hub_mixin_config = {}  # `save_pretrained` writes config.json itself

    def config_fields(self, include_encoder: bool = True) -> dict[str, Any]:
        """config.json of this model. No field has the name of an argument of SEVLM: the mixin would hand it to `_from_pretrained`."""
        encoder = self.image_encoder
        vision = None
        if encoder is not None and include_encoder:
            vision = _known_fields(("model_type", *encoder.kind.fields), encoder.vision.config)
            vision["preparation"] = encoder.preparation._asdict()
        return {
            "model_type": SHARED_TYPE,
            "architectures": ["SEVLM"],
            "decoder_config": _known_fields(GPT2_FIELDS, self.decoder.config),
            "vision_config": vision,
            "fixed_encoder": encoder is None or encoder.fixed,
            "with_vad_encoder": self.vad_encoder is not None,
            "with_emotion_head": self.emotion_head is not None,
            "loss_weights": list(self.weights),
            "label_weight_of_loss": self.label_weight,
            "with_masked_pooling": self.masked_pooling,
        }

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save_folder(save_directory)

    def save_folder(self, folder: Path, include_encoder: bool = True, **more: Any) -> None:
        """Write config.json, with the fields of `more` besides, and model.safetensors into an existing folder."""
        state = self.state_dict()
        del state[TIED]
        if not include_encoder:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(ENCODER)}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS, {"format": "pt"})
        fields = json.dumps(self.config_fields(include_encoder) | more, indent=2, sort_keys=True)
        (folder / CONFIG).write_text(fields + "\n", encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        config: dict[str, Any] | None = None,
        image_encoder: ImageEncoder | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> "SharedModel":
        """Load a folder or hub id, strictly.

        Args:
            config: the fields of its config.json.
            image_encoder: where the folder holds none, the one that the model was trained with.

        Raises:
            ValueError: it is no shared model, or its weights are missing, damaged, not finite or not the model's.
        """
        if not isinstance(config, dict) or config.get("model_type") != SHARED_TYPE:
            raise ValueError(f"{model_id}: no {CONFIG} of a shared SEVLM model")
        if Path(model_id).is_dir():
            path = Path(model_id) / WEIGHTS
        else:
            options = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download}
            path = hf_hub_download(model_id, WEIGHTS, token=token, local_files_only=local_files_only, **options)
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: missing, torn or altered ({error})") from None
        vision = config.get("vision_config")
        if vision is None and image_encoder is None:
            raise ValueError(f"{model_id}: holds no image encoder; give the one that the model was trained with")
        if vision is not None and image_encoder is not None:
            raise ValueError(f"{model_id}: brings its image encoder; give no other")
        if vision is None:
            state |= {ENCODER + name: tensor for name, tensor in image_encoder.state_dict().items()}
        try:
            model = cls._of_config(config, image_encoder)
            state[TIED] = state["decoder.transformer.wte.weight"]
            model.load_state_dict(state, strict=True)
        except Exception as error:  # transformers has one of its own for every wrong field
            raise ValueError(f"{model_id}: {WEIGHTS} and {CONFIG} do not fit ({error})") from None
        if problem := not_finite(model):
            raise ValueError(f"{path}: {problem}")
        return model.eval()

    @classmethod
    def _of_config(cls, config: dict[str, Any], image_encoder: ImageEncoder | None) -> "SharedModel":
        decoder = Explainer(gpt2_config(config["decoder_config"]))
        sizes = decoder.config
        if image_encoder is None:
            image_encoder = _encoder(config["vision_config"], bool(config["fixed_encoder"]))
        vad_encoder = None
        if config["with_vad_encoder"]:
            vad_encoder = VADEncoder(sizes.vad_layers, sizes.vad_heads, sizes.embd_pdrop, sizes.vad_causal)
        alpha, contrastive, vad, emotion = map(float, config["loss_weights"])
        emotion_head = None
        if config["with_emotion_head"]:
            emotion_head = EmotionHead(image_encoder.width, getattr(sizes, "emotion_pooling", "cls"))
        return cls(
            image_encoder,
            decoder,
            vad_encoder,
            emotion_head,
            (alpha, contrastive, vad, emotion),
            bool(config["with_masked_pooling"]),
            float(config["label_weight_of_loss"]),
        )


def _encoder(fields: dict[str, Any], fixed: bool) -> ImageEncoder:
    config = vision_config(fields)
    vision = VISION_KINDS[config.model_type].model(config, **model_arguments(config))
    prepared = fields.get("preparation")  # missing in the oldest folders, whose encoder is a CLIP
    if prepared is None:
        return ImageEncoder(vision, fixed)
    mean, std = (tuple(map(float, prepared[name])) for name in ("mean", "std"))
    return ImageEncoder(vision, fixed, ImagePreparation(prepared["size"], mean, std, prepared["resample"]))


def _known_fields(names: tuple[str, ...], config: PretrainedConfig) -> dict[str, Any]:
    fields = config.to_dict()
    return {name: fields[name] for name in names if name in fields}
