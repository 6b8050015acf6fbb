"""A trained model that explains pictures, batch by batch: what utils.explain does once the command line is right."""

import argparse
import hashlib
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from models.image_encoder import ImageFeatures
from utils.constants import EMOTIONS
from utils.data.image_opening import open_image
from utils.data.vad_lookup import read_lexicon
from utils.errors import InputError, brief
from utils.evaluation.answers import Answer
from utils.evaluation.attention_maps import cross_attention
from utils.evaluation.decoding import generate
from utils.evaluation.explanations import ask
from utils.evaluation.generation_state import Generated
from utils.evaluation.heat_map import PictureHeat, TextHeat, WordHeat, heat_of_words, write_html, write_png
from utils.evaluation.sampling import sample_decode
from utils.training.load_checkpoint import load_checkpoint

DEVICES = ("cpu", "cuda", "mps", "xpu")
HEAT_SIDE = 448  # pixels; longest side of the pictures kept for heat maps


class PictureExplainer:
    """Paths of pictures -> answers. `args` are utils.explain's, checked.

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
        self.vad_of = None if self.trained.vad is None else self.trained.vad.of_generated
        self.emotions = list(EMOTIONS) if args.emotion == "all" else [args.emotion]
        self.precision = _precision(self.trained.args.mixed_precision, self.trained.device)
        self.lexicon = None if self.trained.vad is None else self.trained.vad.lexicon  # tints the words of heat maps
        if args.heat is not None and self.lexicon is None and args.vad_lexicon is not None:
            self.lexicon = read_lexicon(args.vad_lexicon)
        self.heats: list[PictureHeat] = []

    def __call__(self, paths: list[Path]) -> tuple[list[tuple[Path, Answer]], list[str]]:
        """Answers about the pictures that could be read, and a line about each of the others."""
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
            if any(answer.named != answer.named for answer in answers):
                raise InputError(f"{self.args.ckpt}: its model computes numbers that are not finite; take another one")
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
            trained.codec,
            self.vad_of,
            [_seed(args.seed or 0, picture) for picture in pixels],
            args.num_samples,
            emotion=emotion,
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
            heat = PictureHeat(str(path), picture, answer.distribution_lines(), [])
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
        """Write the heat maps of all pictures so far."""
        blocks = self.args.heat_blocks
        named = f"block {', '.join(map(str, blocks))}" if blocks else "all blocks"
        if path.suffix.lower() == ".png":
            write_png(path, self.heats[0], named)
        else:
            write_html(path, self.heats, named)


def _seed(seed: int, pixels: Tensor) -> int:
    """Of a picture's samples: 63 bits of the seed and of the picture as the model takes it, wherever its file lies."""
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
