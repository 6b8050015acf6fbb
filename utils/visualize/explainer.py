"""What a model says of an image, and how that is written down. No torch here."""

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
from utils.training.load_checkpoint import load_checkpoint
from utils.visualize.heat_map import (
    ImageHeat,
    TextHeat,
    WordHeat,
    cross_attention,
    heat_of_words,
    write_html,
    write_png,
)

# ---- What a model says of an image, and how that is written down. No torch here -------------------------------------


SHOWN = 0.01  # smallest probability that is printed


@dataclass
class Explanation:
    """One text about an image.

    text: the whole, "<emotion> because <explanation>". given: whether the emotion was. tokens: of the whole, without the stop
    token. given_tokens: how many of them are the given emotion's.
    """

    text: str
    emotion: str
    explanation: str
    given: bool
    tokens: list[int]
    given_tokens: int


@dataclass
class Answer:
    """What a model says of an image.

    distribution: emotion -> probability, by the likelihood of the nine names; their sum is 1. named: the probability that
    the model names one of the nine at all. head: as distribution, of the 9-way head; None without one.
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
                {"emotion": said.emotion, "given": said.given, "explanation": said.explanation, "text": said.text}
                for said in self.explanations
            ],
        }

    def as_rows(self, path: Path) -> list[dict[str, Any]]:
        """Rows of a table, one for each text."""
        probabilities = {f"p_{emotion}": value for emotion, value in self.distribution.items()}
        if self.head is not None:
            probabilities |= {f"head_{emotion}": value for emotion, value in self.head.items()}
        return [
            {"image": str(path), "emotion": said.emotion, "given": said.given, "explanation": said.explanation}
            | {"named": self.named}
            | probabilities
            for said in self.explanations
        ]

    def lines(self, prompt: str) -> list[str]:
        """The answer for people, in lines: its texts behind the prompt, then the distributions."""
        said = [f"{prompt} {said.text}" + (" (emotion given)" if said.given else "") for said in self.explanations]
        return [*said, *self.distribution_lines()]

    def distribution_lines(self) -> list[str]:
        lines = [f"by its words: {in_percent(self.distribution)}"]
        return lines if self.head is None else [*lines, f"by its emotion head: {in_percent(self.head)}"]


def in_percent(distribution: dict[str, float]) -> str:
    """The emotions, most probable first; those below one per cent are added up."""
    ordered = sorted(distribution.items(), key=lambda entry: -entry[1])
    shown = [f"{emotion} {100 * value:.0f}%" for emotion, value in ordered if value >= SHOWN]
    if len(shown) < len(ordered):
        shown.append(f"others {100 * sum(value for _, value in ordered if value < SHOWN):.1f}%")
    return ", ".join(shown)


# ---- Ask a model about the images of a batch: emotion, its distribution and explanations ---------------------------


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
        write: given an emotion or None and rows of the batch, generates as many texts for each of these images; those of an
            image are neighbours.
        emotions: which to ask about: [None] lets the model choose.
        drop_last_token, emotion_from: as in the evaluation.
    """
    likelihoods = emotion_log_likelihoods(model, image, codec, vad_of)
    distributions, named = likelihoods.softmax(dim=-1).tolist(), likelihoods.logsumexp(dim=-1).exp().tolist()
    heads = head_distribution(model, image)
    answers = [
        Answer(
            _by_emotion(distributions[index]), named[index], None if heads is None else _by_emotion(heads[index]), []
        )
        for index in range(len(named))
    ]
    turns = [(emotion, list(range(len(answers)))) for emotion in emotions]
    if emotions == [None] and emotion_from != "text":
        shares = distributions if emotion_from == "likelihood" else heads.tolist()
        turns = list(rows_by_emotion(most_probable(shares)).items())
    for emotion, rows in turns:
        given, generated = codec.given(emotion), write(emotion, rows)
        tokens = generated.tokens(drop_last_token)
        texts = len(tokens) // len(rows)
        for place, (text, new) in enumerate(zip(generated.texts(codec, drop_last_token, given), tokens, strict=True)):
            named_emotion, explanation = split_generated(text)
            if emotion is not None:  # it ends where its own "because" stands, whatever is written behind it
                named_emotion = emotion
            answers[rows[place // texts]].explanations.append(
                Explanation(text, named_emotion, explanation, emotions != [None], given + new, len(given))
            )
    return answers


def _by_emotion(probabilities: Tensor | list[float]) -> dict[str, float]:
    values = probabilities.tolist() if isinstance(probabilities, Tensor) else probabilities
    return dict(zip(EMOTIONS, values, strict=True))


# ---- A trained model that explains images, batch by batch: what utils.explain does once the command ----------------


DEVICES = ("cpu", "cuda", "mps", "xpu")
HEAT_SIDE = 448  # pixels; longest side of the images kept for heat maps


class ImageExplainer:
    """Paths of images -> answers. `args` are utils.explain's, checked.

    Raises:
        InputError: the checkpoint cannot be loaded, or the device is not there.
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
        read: list[tuple[Path, Image.Image]] = []
        bad: list[str] = []
        for path in paths:
            try:
                str(path).encode()
                read.append((path, open_image(path)))
            except InputError as error:
                bad.append(str(error))
            except UnicodeEncodeError:
                bad.append(str(InputError(f"{path}: its name is not UTF-8; rename it")))
        if not read:
            return [], bad
        pixels = torch.stack([self.trained.pixels.transform(picture) for _, picture in read])
        trained = self.trained
        with torch.inference_mode(), torch.autocast(trained.device.type, self.precision, self.precision is not None):
            image = trained.model.image_features(pixels.to(trained.device), None, None)
            answers = ask(
                trained.model,
                image,
                trained.codec,
                self.vad_of,
                lambda emotion, rows: self._write(
                    ImageFeatures(image.cls[rows], image.grid[rows]), pixels[rows], emotion
                ),
                self.emotions,
                trained.args.drop_last_token,
                trained.args.emotion_from,
            )
            if self.args.heat is not None:
                self._keep_heat(read, image, answers)
        if trained.vad is not None:
            trained.vad.forget()
        return list(zip([path for path, _ in read], answers, strict=True)), bad

    def _write(self, image: ImageFeatures, pixels: Tensor, emotion: str | None) -> Generated:
        args, trained = self.args, self.trained
        if args.num_samples is None:
            return generate(trained.model, image, trained.codec, self.vad_of, trained.args.num_beams, emotion)
        chosen = {name: getattr(args, name) for name in ("temperature", "top_p", "min_new_tokens")}
        return sample_decode(
            trained.model,
            image,
            trained.codec.prompt(emotion),
            self.vad_of,
            [_seed(args.seed or 0, picture) for picture in pixels],
            args.num_samples,
            max_new_tokens=MAX_NEW_TOKENS - len(trained.codec.given(emotion)),
            **{name: value for name, value in chosen.items() if value is not None},
        )

    def _keep_heat(self, read: list[tuple[Path, Image.Image]], image: ImageFeatures, answers: list[Answer]) -> None:
        trained, blocks = self.trained, [block - 1 for block in self.args.heat_blocks or []]
        texts = [said.tokens for answer in answers for said in answer.explanations]
        weights = cross_attention(trained.model, image, trained.codec, self.vad_of, texts)
        weights = (weights[:, :, blocks] if blocks else weights).mean(dim=2).cpu().numpy()
        rows = iter(weights)
        head, prototypes, side = trained.model.emotion_head, None, math.isqrt(image.grid.shape[1])
        if head is not None and head.pooling == "prototypes":
            prototypes = head.patch_scores(image.grid).float().cpu().numpy()
        for index, ((path, picture), answer) in enumerate(zip(read, answers, strict=True)):
            picture = picture.copy()
            picture.thumbnail((HEAT_SIDE, HEAT_SIDE), Image.Resampling.LANCZOS)
            heat = ImageHeat(str(path), picture, answer.distribution_lines(), [])
            for said in answer.explanations:
                of_tokens = next(rows)[: len(said.tokens)]
                words = heat_of_words(said.tokens, of_tokens, trained.codec, self.lexicon, said.given_tokens)
                heat.texts.append(TextHeat(f"{self.prompt} {said.text}", words))
            if prototypes is not None:
                maps = [
                    WordHeat(name, of.reshape(side, side), None)
                    for name, of in zip(EMOTIONS, prototypes[index], strict=True)
                ]
                heat.texts.append(TextHeat("where the emotion head's prototypes look", maps))
            self.heats.append(heat)

    def write_heat(self, path: Path) -> None:
        """Write the heat maps of all images so far."""
        blocks = self.args.heat_blocks
        named = f"block {', '.join(map(str, blocks))}" if blocks else "all blocks"
        if path.suffix.lower() == ".png":
            write_png(path, self.heats[0], named)
        else:
            write_html(path, self.heats, named)


def _seed(seed: int, pixels: Tensor) -> int:
    """Of an image's samples: 63 bits of the seed and of the image as the model takes it, wherever its file lies."""
    digest = hashlib.sha256(f"{seed} ".encode() + pixels.numpy().tobytes()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _check_device(name: str | None) -> None:
    """InputError where PyTorch cannot compute on a device."""
    if name is None:
        return
    try:
        if torch.device(name).type not in DEVICES:
            raise RuntimeError(f"one of {', '.join(DEVICES)} was expected")
        torch.ones(1, device=name).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: {brief(error)}; give another, or leave it out") from None


def _precision(name: str | None, device: torch.device) -> torch.dtype | None:
    """The type that the model was trained and evaluated in, None for float32."""
    if name == "fp16" and device.type != "cuda":
        print("trained with --mixed_precision fp16, which needs a GPU: float32 is used here")
        return None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
