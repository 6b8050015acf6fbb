"""A trained model that explains images: its answers, and the heat maps of where it looked. The engine of utils.explain."""

import argparse
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS, MAX_NEW_TOKENS
from utils.data.images import open_image
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError, brief
from utils.evaluation.emotion_metrics import split_generated
from utils.evaluation.generation import (
    Generated,
    VADOfTokens,
    emotion_log_likelihoods,
    generate,
    head_distribution,
    most_probable,
    rows_by_emotion,
    sample_decode,
)
from utils.training.build_model import load_checkpoint
from utils.visualize.heat_map import (
    ImageHeat,
    TextHeat,
    WordHeat,
    cross_attention,
    heat_of_words,
    write_html,
    write_png,
)

PRINTED = 0.01  # smallest probability that is printed by itself
HEAT_SIDE = 448  # pixels; longest side of the images in heat maps


# ---- answers ---------------------------------------------------------------------------------------------------------


@dataclass
class Explanation:
    """One text about an image.

    text: the whole, "<emotion> because <explanation>". given: whether the user chose the emotion. tokens: of the whole text,
    without the stop token. given_tokens: how many of them were not generated, as the emotion was chosen before.
    """

    text: str
    emotion: str
    explanation: str
    given: bool
    tokens: list[int]
    given_tokens: int


@dataclass
class Answer:
    """A model's answer about an image.

    distribution: emotion -> probability, by the likelihood of the nine names; their sum is 1. named: the probability that
    the model names one of the nine at all. head: the 9-way head's distribution; None without one.
    """

    distribution: dict[str, float]
    named: float
    head: dict[str, float] | None
    explanations: list[Explanation]

    def as_json(self, path: Path) -> dict[str, Any]:
        return {
            "image": str(path),
            "distribution": self.distribution,
            "named": self.named,
            "head": self.head,
            "explanations": [
                {name: getattr(explanation, name) for name in ("emotion", "given", "explanation", "text")}
                for explanation in self.explanations
            ],
        }

    def as_rows(self, path: Path) -> list[dict[str, Any]]:
        """Rows of a table, one for each text."""
        probabilities = {f"p_{emotion}": value for emotion, value in self.distribution.items()}
        if self.head is not None:
            probabilities |= {f"head_{emotion}": value for emotion, value in self.head.items()}
        return [
            {"image": str(path)}
            | {name: getattr(explanation, name) for name in ("emotion", "given", "explanation")}
            | {"named": self.named}
            | probabilities
            for explanation in self.explanations
        ]

    def lines(self, prompt: str) -> list[str]:
        """The answer as lines to print: the prompt with each text, then the distributions."""
        texts = [f"{prompt} {one.text}" + (" (emotion given)" if one.given else "") for one in self.explanations]
        return [*texts, *self.distribution_lines()]

    def distribution_lines(self) -> list[str]:
        lines = [f"by its words: {in_percent(self.distribution)}"]
        return lines if self.head is None else [*lines, f"by its emotion head: {in_percent(self.head)}"]


def in_percent(distribution: dict[str, float]) -> str:
    """The emotions, most probable first; those below one per cent are added up."""
    ordered = sorted(distribution.items(), key=lambda entry: -entry[1])
    printed = [f"{emotion} {100 * value:.0f}%" for emotion, value in ordered if value >= PRINTED]
    if len(printed) < len(ordered):
        printed.append(f"others {100 * sum(value for _, value in ordered if value < PRINTED):.1f}%")
    return ", ".join(printed)


@torch.inference_mode()
def ask(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    write: Callable[[str | None, list[int]], Generated],
    emotions: list[str | None],
    drop_last_token: bool = False,
    emotion_from: str = "text",
) -> list[Answer]:
    """Answers about the B images.

    Args:
        write: (emotion or None, rows of the batch) -> as many texts for each of these images; those of an image are
            neighbours.
        emotions: which to ask about: [None] lets the model choose.
        drop_last_token, emotion_from: as in the evaluation.
    """
    likelihoods = emotion_log_likelihoods(model, image, codec, vad_of)
    distributions, named = likelihoods.softmax(dim=-1).tolist(), likelihoods.logsumexp(dim=-1).exp().tolist()
    heads = head_distribution(model, image)
    heads = [None] * len(named) if heads is None else heads.tolist()
    answers = [
        Answer(_by_emotion(distribution), probability, None if head is None else _by_emotion(head), [])
        for distribution, probability, head in zip(distributions, named, heads, strict=True)
    ]
    rows_of = {emotion: list(range(len(answers))) for emotion in emotions}
    if emotions == [None] and emotion_from != "text":
        rows_of = rows_by_emotion(most_probable(distributions if emotion_from == "likelihood" else heads))
    for emotion, rows in rows_of.items():
        given, generated = codec.given(emotion), write(emotion, rows)
        tokens = generated.tokens(drop_last_token)
        texts_per_image = len(tokens) // len(rows)
        for place, (text, new) in enumerate(zip(generated.texts(codec, drop_last_token, given), tokens, strict=True)):
            text_emotion, explanation = split_generated(text)
            if emotion is not None:  # also where it holds "because" itself
                text_emotion = emotion
            answers[rows[place // texts_per_image]].explanations.append(
                Explanation(text, text_emotion, explanation, emotions != [None], given + new, len(given))
            )
    return answers


def _by_emotion(probabilities: list[float]) -> dict[str, float]:
    return dict(zip(EMOTIONS, probabilities, strict=True))


# ---- from files to answers and heat maps -----------------------------------------------------------------------------


class ImageExplainer:
    """Paths of images -> answers. `args` are utils.explain's, checked.

    Raises:
        InputError: the checkpoint cannot be loaded, or the device does not exist.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        flags = {name: getattr(args, name) for name in ("vad_lexicon", "clip_model", "num_beams")}
        given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        _check_device(args.device)
        self.trained = load_checkpoint(args.ckpt, args.name, given, args.device)
        self.prompt = self.trained.args.prompt_text.strip()
        self.vad_of = None if self.trained.vad is None else self.trained.vad.for_generated
        self.emotions = list(EMOTIONS) if args.emotion == "all" else [args.emotion]
        self.precision = _precision(self.trained.args.mixed_precision, self.trained.device)
        self.lexicon = None if self.trained.vad is None else self.trained.vad.lexicon  # tints the words of heat maps
        if args.heat is not None and self.lexicon is None and args.vad_lexicon is not None:
            self.lexicon = read_lexicon(args.vad_lexicon)
        self.heats: list[ImageHeat] = []

    def __call__(self, paths: list[Path]) -> tuple[list[tuple[Path, Answer]], list[str]]:
        """Answers about the images that could be read, and a line about each of the others."""
        images: dict[Path, Image.Image] = {}
        unread: list[str] = []
        for path in paths:
            try:
                str(path).encode()
                images[path] = open_image(path)
            except InputError as error:
                unread.append(str(error))
            except UnicodeEncodeError:
                unread.append(str(InputError(f"{path}: its name is not UTF-8; rename it")))
        if not images:
            return [], unread
        trained = self.trained
        pixels = torch.stack([trained.pixels.transform(image) for image in images.values()])
        with torch.inference_mode(), torch.autocast(trained.device.type, self.precision, self.precision is not None):
            features = trained.model.image_features(pixels.to(trained.device), None, None)

            def write(emotion: str | None, rows: list[int]) -> Generated:
                return self._generate(ImageFeatures(features.cls[rows], features.grid[rows]), pixels[rows], emotion)

            answers = ask(
                trained.model,
                features,
                trained.codec,
                self.vad_of,
                write,
                self.emotions,
                trained.args.drop_last_token,
                trained.args.emotion_from,
            )
            if self.args.heat is not None:
                self._add_heat(images, features, answers)
        return list(zip(images, answers, strict=True)), unread

    def _generate(self, image: ImageFeatures, pixels: Tensor, emotion: str | None) -> Generated:
        args, trained = self.args, self.trained
        if args.num_samples is None:
            return generate(trained.model, image, trained.codec, self.vad_of, trained.args.num_beams, emotion)
        flags = {name: getattr(args, name) for name in ("temperature", "top_p", "min_new_tokens")}
        return sample_decode(
            trained.model,
            image,
            trained.codec.prompt(emotion),
            self.vad_of,
            [sample_seed(args.seed or 0, image_pixels) for image_pixels in pixels],
            args.num_samples,
            max_new_tokens=MAX_NEW_TOKENS - len(trained.codec.given(emotion)),
            **{name: value for name, value in flags.items() if value is not None},
        )

    def _add_heat(self, images: dict[Path, Image.Image], features: ImageFeatures, answers: list[Answer]) -> None:
        """Add the heat maps of a batch to `self.heats`."""
        trained, blocks = self.trained, [block - 1 for block in self.args.heat_blocks or []]
        texts = [explanation.tokens for answer in answers for explanation in answer.explanations]
        weights = cross_attention(trained.model, features, trained.codec, self.vad_of, texts)
        weights = (weights[:, :, blocks] if blocks else weights).mean(dim=2).cpu().numpy()
        rows = iter(weights)
        head, prototypes, side = trained.model.emotion_head, None, math.isqrt(features.grid.shape[1])
        if head is not None and head.pooling == "prototypes":
            prototypes = head.patch_scores(features.grid).float().cpu().numpy()
        for index, ((path, image), answer) in enumerate(zip(images.items(), answers, strict=True)):
            image.thumbnail((HEAT_SIDE, HEAT_SIDE), Image.Resampling.LANCZOS)
            heat = ImageHeat(str(path), image, answer.distribution_lines(), [])
            for one in answer.explanations:
                weights = next(rows)[: len(one.tokens)]
                words = heat_of_words(one.tokens, weights, trained.codec, self.lexicon, one.given_tokens)
                heat.texts.append(TextHeat(f"{self.prompt} {one.text}", words))
            if prototypes is not None:
                maps = [
                    WordHeat(emotion, scores.reshape(side, side), None)
                    for emotion, scores in zip(EMOTIONS, prototypes[index], strict=True)
                ]
                heat.texts.append(TextHeat("where the emotion head's prototypes look", maps))
            self.heats.append(heat)

    def write_heat(self, path: Path) -> None:
        """Write the heat maps of all images so far."""
        blocks = self.args.heat_blocks
        block_names = f"block {', '.join(map(str, blocks))}" if blocks else "all blocks"
        if path.suffix.lower() == ".png":
            write_png(path, self.heats[0], block_names)
        else:
            write_html(path, self.heats, block_names)


def sample_seed(seed: int, pixels: Tensor) -> int:
    """The seed of an image's samples: 63 bits of a hash of the seed and of the pixels as the model sees them."""
    digest = hashlib.sha256(f"{seed} ".encode() + pixels.numpy().tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _check_device(name: str | None) -> None:
    """InputError where PyTorch cannot compute on a device."""
    if name is None:
        return
    try:
        torch.ones(1, device=name).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: {brief(error)}; give another, or leave it out") from None


def _precision(name: str | None, device: torch.device) -> torch.dtype | None:
    """The type that the model was trained and evaluated in, None for float32."""
    if name == "fp16" and device.type != "cuda":
        print("trained with --mixed_precision fp16, which needs a GPU: float32 is used here")
        return None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
