"""CLIPScore and RefCLIPScore (Hessel et al., 2021): how well an explanation fits the image, by a whole CLIP model."""

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
    "give the folder or id of a whole CLIP model with text half and tokenizer, e.g. openai/clip-vit-base-patch32 as in "
    "CLIPScore's paper"
)
TEXT_FIELDS = (
    *TRANSFORMER_FIELDS,
    *("vocab_size", "intermediate_size", "projection_dim", "max_position_embeddings"),
    *("hidden_act", "layer_norm_eps", "attention_dropout", "initializer_factor"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


class ClipScorer(NamedTuple):
    """A whole CLIP model. name: as it was given. model: in evaluation mode. folder: of the images."""

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
        vectors = self._texts([*texts.values(), *(text for image in texts for text in references[image])])
        text_vectors, reference_vectors = vectors[: len(texts)], iter(vectors[len(texts) :])
        image_vectors = torch.cat(list(self._images([image_names[image] for image in texts])))
        scores: dict[str, dict[int, float]] = {"CLIPScore": {}, "RefCLIPScore": {}}
        for image, text_vector, image_vector in zip(texts, text_vectors, image_vectors, strict=True):
            score = WEIGHT * max(float(text_vector @ image_vector), 0.0)
            nearest = max(0.0, *(float(text_vector @ next(reference_vectors)) for _ in references[image]))
            scores["CLIPScore"][image] = score
            scores["RefCLIPScore"][image] = 2 * score * nearest / (score + nearest) if score + nearest else 0.0
        return scores

    @torch.inference_mode()
    def similarities(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> Tensor:
        """Cosine of each image and each of its N texts: float32 [B, N]. texts: N of each of the B images."""
        size, device = self.model.config.vision_config.image_size, self.model.device
        pixels = torch.stack([clip_pixels(image, size) for image in images])
        image_vectors = _unit(self.model.get_image_features(pixels.to(device)).pooler_output)
        text_vectors = self._texts([text for of_image in texts for text in of_image])
        return (text_vectors.view(len(images), -1, text_vectors.shape[-1]) @ image_vectors[..., None]).squeeze(-1)

    def open(self, name: str) -> Image.Image:
        """The image of this name in the folder; InputError where it is missing or damaged."""
        return open_image(self._path(name))

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

    def _images(self, names: Sequence[str]) -> Iterable[Tensor]:
        """Unit vectors of images, batch by batch."""
        size = self.model.config.vision_config.image_size
        with ProgressLine("CLIPScore", len(names), "images") as line:
            for start in range(0, len(names), BATCH):
                batch = names[start : start + BATCH]
                pixels = torch.stack([clip_pixels(self.open(name), size) for name in batch])
                yield _unit(self.model.get_image_features(pixels.to(self.model.device)).pooler_output)
                line.advance(start + len(batch))

    def _path(self, name: str) -> Path:
        path = find_image(self.folder, name)
        if path is None:
            raise InputError(f"{self.folder}: no image {shorten(name)}, which CLIP needs; add it")
        return path


def _unit(vectors: Tensor) -> Tensor:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).float().cpu()


def clip_pixels(image: Image.Image, size: int) -> Tensor:
    """An image prepared as in CLIP's training: float32 [3, size, size].

    The shorter side is resized to `size` (bicubic), the middle square is cropped, and channels are normalised by CLIP's own
    statistics. SEVLM's image encoder has its own preparation.
    """
    shorter = min(image.size)
    width, height = (size * side // shorter for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    square = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(square, dtype=np.uint8)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def load_clip_scorer(
    name: str, folder: Path, device: torch.device | str = "cpu", flag: str = "--clip_score"
) -> ClipScorer:
    """Load a whole CLIP model, image and text half.

    Args:
        name: folder or Hugging Face id. folder: of the images. flag: that named the model, for messages.

    Raises:
        InputError: there is no such model, a half or the tokenizer is missing, or a file is damaged.
    """
    source = f"{flag} {name}"
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
    model, missing, _ = load_pretrained(CLIPModel, name, config, source, REMEDY)
    if missing:
        raise InputError(f"{source}: lacks weights of a whole CLIP model ({', '.join(sorted(missing)[:3])}); {REMEDY}")
    return ClipScorer(name, model.eval().to(device), tokenizer, folder)


def _clip_config(saved: dict[str, Any]) -> CLIPConfig:
    """The config of a whole CLIP model from the known fields of its config.json; others are ignored."""
    text = {name: saved["text_config"][name] for name in TEXT_FIELDS if name in saved["text_config"]}
    fields = VISION_KINDS["clip_vision_model"].fields
    vision = {name: saved["vision_config"][name] for name in fields if name in saved["vision_config"]}
    return CLIPConfig(
        text_config=CLIPTextConfig(**text).to_dict(),
        vision_config=CLIPVisionConfig(**vision).to_dict(),
        projection_dim=saved.get("projection_dim", vision.get("projection_dim", 512)),
        attn_implementation=ATTENTION,
    )
