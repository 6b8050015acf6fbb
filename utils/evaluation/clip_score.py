"""CLIPScore and RefCLIPScore (Hessel et al., 2021): does an explanation suit the image, by a whole CLIP model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast

from models.config import ATTENTION, TRANSFORMER_FIELDS
from models.image_encoder import VISION_KINDS
from utils.constants import CLIP_MEAN, CLIP_STD
from utils.data.images import find_image, open_image, shorten
from utils.data.pretrained import check_model_type, find_config, load_pretrained, read_clip_tokenizer
from utils.errors import InputError, brief
from utils.progress import ProgressLine

PREFIX = "A photo depicts "
WEIGHT = 2.5
BATCH = 32
REMEDY = (
    "give the folder or id of a whole CLIP model with text half and tokenizer, e.g. openai/clip-vit-base-patch32, which the "
    "paper of CLIPScore uses"
)
TEXT_FIELDS = (
    *TRANSFORMER_FIELDS,
    *("vocab_size", "intermediate_size", "projection_dim", "max_position_embeddings"),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "initializer_factor"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


class ClipScorer(NamedTuple):
    """A CLIP model of both halves.

    name: as it was given. model: in evaluation mode. folder: of the images.
    """

    name: str
    model: CLIPModel
    tokenizer: PreTrainedTokenizerFast
    folder: Path

    @torch.inference_mode()
    def scores(
        self, texts: Mapping[int, str], references: Mapping[int, Sequence[str]], image_names: Mapping[int, str]
    ) -> dict[str, dict[int, float]]:
        """Score the texts of images.

        CLIPScore = 2.5 * max(cos(image, text), 0). RefCLIPScore is the harmonic mean of that and
        max(cos(text, reference), 0) of the most similar reference. Every text begins with "A photo depicts". Images are
        prepared as CLIP's, see `clip_pixels`.

        Args:
            texts: image id -> explanation. references: image id -> its references. image_names: image id -> its name.

        Returns:
            "CLIPScore" (0 .. 2.5), "RefCLIPScore" (0 .. 10/7) -> image id -> value.

        Raises:
            InputError: an image is missing or damaged.
        """
        of_texts = self._texts([*texts.values(), *(text for image in texts for text in references[image])])
        own, others = of_texts[: len(texts)], iter(of_texts[len(texts) :])
        pictures = torch.cat(list(self._pictures([image_names[image] for image in texts])))
        found: dict[str, dict[int, float]] = {"CLIPScore": {}, "RefCLIPScore": {}}
        for row, image in enumerate(texts):
            score = WEIGHT * max(float(own[row] @ pictures[row]), 0.0)
            nearest = max(float(own[row] @ next(others)) for _ in references[image])
            nearest = max(nearest, 0.0)
            found["CLIPScore"][image] = score
            found["RefCLIPScore"][image] = 2 * score * nearest / (score + nearest) if score + nearest else 0.0
        return found

    def _texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of texts, cut at the model's length as CLIP cuts them."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))  # equally long ones together
        length, device = self.model.config.text_config.max_position_embeddings, self.model.device
        vectors = []
        for start in range(0, len(distinct), BATCH):
            prompts = [PREFIX + text for text in distinct[start : start + BATCH]]
            tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=length, return_tensors="pt")
            vectors.append(self.model.get_text_features(**tokens.to(device)).pooler_output)
        places = {text: place for place, text in enumerate(distinct)}
        return _unit(torch.cat(vectors))[[places[text] for text in texts]]

    def _pictures(self, names: Sequence[str]) -> Iterable[Tensor]:
        """Unit vectors of images, batch by batch."""
        size = self.model.config.vision_config.image_size
        with ProgressLine("CLIPScore", len(names), "pictures") as line:
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                pixels = torch.stack([clip_pixels(open_image(self._path(name)), size) for name in batch])
                yield _unit(self.model.get_image_features(pixels.to(self.model.device)).pooler_output)
                line.advance(start + len(batch))

    def _path(self, name: str) -> Path:
        path = find_image(self.folder, name)
        if path is None:
            raise InputError(f"{self.folder}: no image {shorten(name)}, which CLIPScore looks at; add it")
        return path


def _unit(vectors: Tensor) -> Tensor:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).float().cpu()


def clip_pixels(image: Image.Image, size: int) -> Tensor:
    """An image as CLIP was trained on it: float32 [3, size, size].

    The shorter side is resized to `size` (bicubic), the middle square is cut out, and channels are normalised by CLIP's own
    statistics. The image encoder of SEVLM sees its images otherwise.
    """
    width, height = image.size
    short = min(width, height)
    width, height = size * width // short, size * height // short
    left, top = (width - size) // 2, (height - size) // 2
    cut = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(cut, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def load_clip_scorer(name: str, folder: Path, device: torch.device | str = "cpu") -> ClipScorer:
    """Load a CLIP model with both halves.

    Args:
        name: folder or Hugging Face id.

    Raises:
        InputError: there is no such model, a half or the tokenizer is missing, or a file is damaged.
    """
    source = f"--clip_score {name}"
    saved = find_config(name, source, REMEDY)
    check_model_type(saved, ("clip",), f"{source}: config.json")
    if not all(isinstance(saved.get(half), dict) for half in ("text_config", "vision_config")):
        raise InputError(f"{source}: config.json has no text_config or no vision_config; {REMEDY}")
    try:
        config = _clip_config(saved)
    except Exception as error:  # transformers raises many kinds of error for a wrong field
        raise InputError(f"{source}: config.json: {brief(error)}; {REMEDY}") from None
    tokenizer = read_clip_tokenizer(name)
    if len(tokenizer) > config.text_config.vocab_size:
        raise InputError(f"{source}: its tokenizer has more tokens than its model's vocabulary; {REMEDY}")
    model, lacking, _ = load_pretrained(CLIPModel, name, config, source, REMEDY)
    if lacking:
        raise InputError(f"{source}: lacks weights of a whole CLIP model ({', '.join(sorted(lacking)[:3])}); {REMEDY}")
    return ClipScorer(name, model.eval().to(device), tokenizer, folder)


def _clip_config(saved: dict[str, Any]) -> CLIPConfig:
    """Build the config of a whole CLIP model, both halves, from its config.json. Fields that are in no list are ignored.

    Raises:
        KeyError, TypeError: a half is missing.
    """
    text = {name: saved["text_config"][name] for name in TEXT_FIELDS if name in saved["text_config"]}
    fields = VISION_KINDS["clip_vision_model"].fields
    vision = {name: saved["vision_config"][name] for name in fields if name in saved["vision_config"]}
    return CLIPConfig(
        text_config=CLIPTextConfig(**text).to_dict(),
        vision_config=CLIPVisionConfig(**vision).to_dict(),
        projection_dim=saved.get("projection_dim", vision.get("projection_dim", 512)),
        attn_implementation=ATTENTION,
    )
