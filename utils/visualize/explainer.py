"""A trained model that explains images, for utils.explain and utils.app: from files to answers and heat maps."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS, MAX_NEW_TOKENS, RERANK_MODEL, RERANKERS
from utils.data.images import open_image, to_rgb
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError, brief
from utils.evaluation.clip_score import ClipScorer, load_clip_scorer
from utils.evaluation.decoding_state import VADOfTokens
from utils.evaluation.emotion_metrics import split_generated
from utils.evaluation.generation import (
    Generated,
    emotion_log_likelihoods,
    generate,
    head_distribution,
    most_probable,
    rows_by_emotion,
    sample_decode,
    sample_seed,
)
from utils.training.build_model import load_checkpoint
from utils.visualize.answers import HEAT_SIDE, Answer, Explanation
from utils.visualize.heat_map import ImageHeat, TextHeat, WordHeat, cross_attention, heat_of_words


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
    sources = {"likelihood": distributions} | ({} if heads is None else {"head": heads.tolist()})
    answers = [
        Answer(
            {source: dict(zip(EMOTIONS, rows[row], strict=True)) for source, rows in sources.items()}, named[row], []
        )
        for row in range(len(named))
    ]
    rows_of = {emotion: list(range(len(answers))) for emotion in emotions}
    if emotions == [None] and emotion_from != "text":
        rows_of = rows_by_emotion(most_probable(sources[emotion_from]))
    for emotion, rows in rows_of.items():
        given, generated = codec.given(emotion), write(emotion, rows)
        tokens = generated.tokens(drop_last_token)
        texts_per_image = len(tokens) // len(rows)
        likely = generated.log_probabilities
        likely = [None] * len(tokens) if likely is None else likely.tolist()
        texts = zip(generated.texts(codec, drop_last_token, given), tokens, likely, strict=True)
        for place, (text, new, log_probability) in enumerate(texts):
            text_emotion, explanation = split_generated(text)
            if emotion is not None:  # also where it holds "because" itself
                text_emotion = emotion
            answers[rows[place // texts_per_image]].explanations.append(
                Explanation(
                    text, text_emotion, explanation, emotions != [None], given + new, len(given), log_probability
                )
            )
    return answers


class ImageExplainer:
    """A trained model to ask about images: `model(image)` -> Answer, `model([image, image])` -> a list of them.

    Args:
        ckpt: a run's checkpoints, an exported model's folder, or a Hugging Face id.
        name: which checkpoint (best-res by default); an exported model takes none.
        vad_lexicon: the VAD lexicon, if the training's is no longer in its place.
        clip_model: the image encoder, if the training's is no longer in its place.
        device: cpu, cuda, ...; by default an accelerator, if there is one.

    Raises:
        InputError: the checkpoint cannot be loaded, or the device does not exist.
    """

    def __init__(
        self,
        ckpt: Path,
        name: str | None = None,
        vad_lexicon: Path | None = None,
        clip_model: str | None = None,
        device: str | None = None,
    ):
        flags = {"vad_lexicon": vad_lexicon, "clip_model": clip_model}
        _check_device(device)
        self.trained = load_checkpoint(
            ckpt, name, [f"--{flag}={value}" for flag, value in flags.items() if value is not None], device
        )
        self.prompt = self.trained.args.prompt_text.strip()
        self.vad_of = None if self.trained.vad is None else self.trained.vad.for_generated
        self.precision = _precision(self.trained.args.mixed_precision, self.trained.device)
        self.lexicon = None if self.trained.vad is None else self.trained.vad.lexicon  # for the words' VAD
        if self.lexicon is None and vad_lexicon is not None:
            self.lexicon = read_lexicon(vad_lexicon)
        self._clip: dict[str, ClipScorer] = {}  # loaded where they are asked for

    def __call__(
        self,
        images: "str | Path | Image.Image | Sequence[str | Path | Image.Image]",
        emotion: str | None = None,
        num_beams: int | None = None,
        num_samples: int | None = None,
        temperature: float = 1.0,
        top_p: float = 0.9,
        min_new_tokens: int = 0,
        seed: int = 0,
        rerank: str | None = None,
        rerank_model: str = RERANK_MODEL,
    ) -> "Answer | list[Answer]":
        """Ask about images; those of a list are computed together.

        Args:
            images: files, or PIL images of any mode and size.
            emotion: explain this one of the nine instead of the model's own; "all": each of them.
            num_beams: beam search; by default as in the checkpoint's evaluation, 1: greedy.
            num_samples: draw this number of texts instead, by `temperature`, `top_p` and `min_new_tokens`, see
                `sample_decode`. They depend on `seed` and the image only.
            rerank: keep only the best of these: "clip", by the CLIP model `rerank_model` (folder or Hugging Face id), or
                "likelihood", by the mean log-probability of its tokens.

        Raises:
            InputError: a file is missing or not an image that can be read; an argument is wrong.
        """
        if rerank is not None and (rerank not in RERANKERS or num_samples is None):
            raise InputError(f"rerank {rerank!r}: give clip or likelihood, together with num_samples")
        if emotion not in (None, "all", *EMOTIONS):
            raise InputError(f"emotion {emotion!r}: give one of {', '.join(EMOTIONS)}, or all")
        single = isinstance(images, str | Path | Image.Image)
        opened = [_rgb(image) for image in ([images] if single else images)]
        if not opened:
            return []
        trained = self.trained
        pixels = torch.stack([trained.pixels.transform(image) for image in opened])

        def write(chosen: str | None, rows: list[int]) -> Generated:
            part = ImageFeatures(features.cls[rows], features.grid[rows])
            if num_samples is None:
                return generate(
                    trained.model, part, trained.codec, self.vad_of, num_beams or trained.args.num_beams, chosen
                )
            return sample_decode(
                trained.model,
                part,
                trained.codec.prompt(chosen),
                self.vad_of,
                [sample_seed(seed, image_pixels.numpy().tobytes()) for image_pixels in pixels[rows]],
                num_samples,
                temperature=temperature,
                top_p=top_p,
                min_new_tokens=min_new_tokens,
                max_new_tokens=MAX_NEW_TOKENS - len(trained.codec.given(chosen)),
            )

        with self._context():
            features = trained.model.image_features(pixels.to(trained.device), None, None)
            answers = ask(
                trained.model,
                features,
                trained.codec,
                self.vad_of,
                write,
                list(EMOTIONS) if emotion == "all" else [emotion],
                trained.args.drop_last_token,
                trained.args.emotion_from,
            )
        if rerank is not None:
            self._keep_best(answers, opened, num_samples, rerank_model if rerank == "clip" else None)
        for row, (answer, image) in enumerate(zip(answers, opened, strict=True)):
            answer.image = image
            answer.features = ImageFeatures(features.cls[[row]], features.grid[[row]])
            answer.look = lambda answer=answer: self.words([answer], answer.features)[0]
        return answers[0] if single else answers

    def _keep_best(
        self, answers: list[Answer], images: list[Image.Image], samples: int, clip_model: str | None
    ) -> None:
        """Keep the best of each `samples` neighbouring explanations: by CLIP, or by their own log-probability."""
        if clip_model is not None and clip_model not in self._clip:
            self._clip[clip_model] = load_clip_scorer(clip_model, Path(), self.trained.device, "--rerank_model")
        for answer, image in zip(answers, images, strict=True):
            texts = answer.explanations
            if clip_model is None:
                scores = torch.tensor([one.log_probability for one in texts])
            else:
                scores = self._clip[clip_model].similarities([image], [[one.explanation for one in texts]])[0]
            best = scores.view(-1, samples).argmax(dim=1).tolist()
            answer.explanations = [texts[group * samples + place] for group, place in enumerate(best)]

    def words(
        self, answers: list[Answer], features: ImageFeatures, blocks: Sequence[int] = ()
    ) -> list[list[list[WordHeat]]]:
        """The words, with VAD and attention, of each answer's texts, which are equally many.

        blocks: decoder blocks whose cross-attention is averaged, counted from 1; none: all.
        """
        trained, chosen = self.trained, [block - 1 for block in blocks]
        texts = [one.tokens for answer in answers for one in answer.explanations]
        with self._context():
            weights = cross_attention(trained.model, features, trained.codec, self.vad_of, texts)
        rows = iter((weights[:, :, chosen] if chosen else weights).mean(dim=2).cpu().numpy())
        return [
            [
                heat_of_words(one.tokens, next(rows)[: len(one.tokens)], trained.codec, self.lexicon, one.given_tokens)
                for one in answer.explanations
            ]
            for answer in answers
        ]

    def heats(self, names: Sequence[str], answers: list[Answer], blocks: Sequence[int] = ()) -> list[ImageHeat]:
        """The heat maps of answers of one call, for `write_png` and `write_html`: of the texts, and of the head's prototypes."""
        features = ImageFeatures(
            *(torch.cat(part) for part in zip(*(answer.features for answer in answers), strict=True))
        )
        head, side, prototypes = self.trained.model.emotion_head, math.isqrt(features.grid.shape[1]), None
        if head is not None and head.pooling == "prototypes":
            with self._context():
                prototypes = head.patch_scores(features.grid).float().cpu().numpy()
        heats = []
        for row, (name, answer, words) in enumerate(
            zip(names, answers, self.words(answers, features, blocks), strict=True)
        ):
            image = answer.image.copy()
            image.thumbnail((HEAT_SIDE, HEAT_SIDE), Image.Resampling.LANCZOS)
            titles = [f"{self.prompt} {one.text}" for one in answer.explanations]
            texts = [TextHeat(title, of_text) for title, of_text in zip(titles, words, strict=True)]
            if prototypes is not None:
                maps = [scores.reshape(side, side) for scores in prototypes[row]]
                maps = [WordHeat(emotion, scores) for emotion, scores in zip(EMOTIONS, maps, strict=True)]
                texts.append(TextHeat("where the emotion head's prototypes look", maps))
            heats.append(ImageHeat(name, image, answer.distribution_lines(), texts))
        return heats

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        device = self.trained.device.type
        with torch.inference_mode(), torch.autocast(device, self.precision, self.precision is not None):
            yield


def _rgb(image: "str | Path | Image.Image") -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    return open_image(image)


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
