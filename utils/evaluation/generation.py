"""Generating texts about images: greedily (as in the paper), by beam search or by sampling; likelihoods of the emotions.

Each of them advances a `DecodingState`, whose `next_hidden` is one exact step of the model.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.cpu.packed_weights import attention_to_grid
from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS, MAX_NEW_TOKENS
from utils.data.text_codec import Prompt, TextCodec
from utils.evaluation.decoding_state import DecodingState, VADOfTokens
from utils.evaluation.emotion_metrics import named_emotion, split_generated

NUCLEUS = 512  # tokens that mostly hold the nucleus: the whole vocabulary is sorted only where they do not


@dataclass
class Generated:
    """Generated texts of B images.

    token_ids: int64 [B, max_new_tokens], padded with -1 behind a row's stop token.
    lengths: int64 [B], tokens before the stop token; max_new_tokens where none came.
    log_probabilities: float32 [B], mean log-probability of each text's tokens, its stop token included (samples only).
    """

    token_ids: Tensor
    lengths: Tensor
    log_probabilities: Tensor | None = None

    def texts(self, codec: TextCodec, drop_last_token: bool = False, given: Sequence[int] = ()) -> list[str]:
        """Decoded texts.

        Args:
            drop_last_token: as published, a text without a stop token loses its last one.
            given: tokens of the emotion, where generation began after it; they are part of the text.
        """
        return [codec.decode([*given, *tokens]) for tokens in self.tokens(drop_last_token)]

    def tokens(self, drop_last_token: bool = False) -> list[list[int]]:
        """The new tokens of each text, without its stop token."""
        limit = self.token_ids.shape[1] - int(drop_last_token)
        rows = zip(self.token_ids.tolist(), self.lengths.clamp(max=limit).tolist(), strict=True)
        return [tokens[:length] for tokens, length in rows]


@torch.inference_mode()
def greedy_decode(
    model: SEVLM,
    image: ImageFeatures,
    prompt: Prompt,
    vad_of: VADOfTokens | None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Generated:
    """Generate one text per image, always taking the most probable token, as in the paper (nucleus filtering keeps it).

    A text ends before the first of the prompt's stop tokens; if there are none, it gets all its tokens.
    """
    # Image keys and values pay only in blocks that compute many positions at every step.
    one_position = vad_of is None or model.vad_encoder.causal
    with attention_to_grid(model.decoder, model.decoder.config.n_layer if one_position else 1):
        state = DecodingState(model, image, prompt, vad_of)
        batch, device = state.ids.shape[0], state.ids.device
        stops = torch.tensor(prompt.stop_ids, device=device, dtype=torch.long)
        all_ids = torch.full((batch, max_new_tokens), -1)
        lengths = torch.full((batch,), max_new_tokens)
        for step in range(max_new_tokens):
            _, top_ids = model.decoder.top_two(state.next_hidden())
            next_ids = top_ids[:, 0]
            state.append(next_ids)

            live = ~torch.isin(next_ids, stops).cpu()
            lengths[state.index[~live]] = step
            all_ids[state.index[live], step] = next_ids.cpu()[live]
            if not live.any():
                break
            if not live.all():
                state.select(live)
    return Generated(all_ids, lengths)


@torch.inference_mode()
def beam_decode(
    model: SEVLM,
    image: ImageFeatures,
    prompt: Prompt,
    vad_of: VADOfTokens | None,
    num_beams: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Generated:
    """Generate the most probable text per token among those that `num_beams` partial texts per image lead to.

    A text's score is the mean log-probability of its new tokens, its stop token included (length penalty 1). At each step
    the `num_beams` most probable unfinished texts of an image are continued. A text ends when a stop token is among its
    image's `num_beams` best continuations; the best ended text wins. The search of an image is over when no unfinished
    text can still win, whatever follows.
    """
    state = DecodingState(model, image, prompt, vad_of, num_beams)
    device, images, prompt_length = state.ids.device, len(image.grid), len(prompt.ids)
    stops = torch.tensor(prompt.stop_ids, device=device, dtype=torch.long)
    first_row = torch.arange(images, device=device)[:, None] * num_beams
    best = _BestTexts(images, max_new_tokens, device)
    # log-probability of each beam's new tokens; the beams of an image start equal, so all but one are out of the first step
    sums = torch.full((images, num_beams), -torch.inf, device=device)
    sums[:, 0] = 0.0
    for step in range(max_new_tokens):
        log_probabilities = model.decoder.lm_head(state.next_hidden()).float().log_softmax(dim=-1)
        vocabulary = log_probabilities.shape[-1]
        totals = sums[..., None] + log_probabilities.view(images, num_beams, vocabulary)
        if len(stops):
            threshold = totals.flatten(1).topk(num_beams, dim=1).values[:, -1]
            stop_scores, beam = totals[..., stops].amax(dim=-1).max(dim=1)
            stop_scores[stop_scores < threshold] = -torch.inf
            best.update(state.ids[first_row[:, 0] + beam, prompt_length:], stop_scores / (step + 1))
            totals[..., stops] = -torch.inf
        sums, choice = totals.flatten(1).topk(num_beams, dim=1)
        state.reorder((first_row + choice // vocabulary).flatten())
        state.append((choice % vocabulary).flatten())
        if bool((best.scores >= sums[:, 0] / max_new_tokens).all()):  # later tokens only lower a sum
            break
    else:
        best.update(state.ids[first_row[:, 0], prompt_length:], sums[:, 0] / max_new_tokens)
    return Generated(best.token_ids.cpu(), best.lengths.cpu())


class _BestTexts:
    """The best ended text of each of B images so far: its mean log-probability, new tokens and their number."""

    def __init__(self, images: int, max_new_tokens: int, device: torch.device):
        self.scores = torch.full((images,), -torch.inf, device=device)
        self.token_ids = torch.full((images, max_new_tokens), -1, device=device)
        self.lengths = torch.zeros(images, dtype=torch.long, device=device)

    def update(self, token_ids: Tensor, scores: Tensor) -> None:
        """Take over the texts that are better than the best so far. token_ids: [B, length]. scores: [B]."""
        better, length = scores > self.scores, token_ids.shape[1]
        self.scores[better], self.lengths[better] = scores[better], length
        self.token_ids[better] = -1
        self.token_ids[better, :length] = token_ids[better]


@torch.inference_mode()
def sample_decode(
    model: SEVLM,
    image: ImageFeatures,
    prompt: Prompt,
    vad_of: VADOfTokens | None,
    seeds: list[int],
    num_samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 0.9,
    min_new_tokens: int = 0,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Generated:
    """Draw `num_samples` texts for each of the B images from the model's distribution.

    Args:
        seeds: of each image's random numbers [B], so that its samples do not depend on the rest of the batch.
        temperature: the logits are divided by it; above 0.
        top_p: nucleus: only the most probable tokens that together reach this probability are drawn from; in (0, 1].
        min_new_tokens: no text ends before it has this many tokens after the prompt.

    Returns:
        B num_samples texts, those of an image one after the other.
    """
    state = DecodingState(model, image, prompt, vad_of, num_samples)
    texts, device = state.ids.shape[0], state.ids.device
    stops = torch.tensor(prompt.stop_ids, device=device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    all_ids = torch.full((texts, max_new_tokens), -1)
    lengths = torch.full((texts,), max_new_tokens)
    running = torch.ones(texts, dtype=torch.bool)
    total, counted = torch.zeros(texts), torch.zeros(texts)  # of log-probabilities, and of tokens
    for step in range(max_new_tokens):
        plain_logits = model.decoder.lm_head(state.next_hidden()).float()
        logits = plain_logits / temperature
        if step < min_new_tokens:
            logits[:, stops] = -torch.inf
        # also for texts that have ended: what a text draws must not depend on the length of another
        uniform = torch.cat([torch.rand(num_samples, generator=generator) for generator in generators])
        next_ids = draw_tokens(logits.softmax(dim=-1), top_p, uniform.to(device))
        state.append(next_ids)
        log_probability = plain_logits.log_softmax(dim=-1).gather(-1, next_ids[:, None]).flatten().cpu()
        total[running] += log_probability[running]
        counted += running
        stopped = running & torch.isin(next_ids, stops).cpu()
        lengths[stopped] = step
        running &= ~stopped
        all_ids[running, step] = next_ids.cpu()[running]
        if not running.any():
            break
    return Generated(all_ids, lengths, log_probabilities=total / counted.clamp(min=1))


def sample_seed(seed: int, image: bytes) -> int:
    """The seed of an image's samples: 63 bits of a hash of the seed and of what identifies the image."""
    return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + image).digest()[:8], "big") >> 1


def draw_tokens(probabilities: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """Draw a token for each row from the nucleus: probabilities [N, V], uniform [N] in [0, 1) -> ids [N].

    The nucleus is the smallest set of most probable tokens whose probabilities add up to top_p or more.
    """
    ordered, ids = probabilities.topk(min(NUCLEUS, probabilities.shape[-1]), dim=-1)
    if bool((ordered.sum(dim=-1) < top_p).any()):
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.cumsum(dim=-1)
    size = ((cumulative - ordered) < top_p).sum(dim=-1, keepdim=True)
    mass = cumulative.gather(-1, size - 1)
    place = torch.searchsorted(cumulative, uniform[:, None] * mass, right=True).minimum(size - 1)
    return ids.gather(-1, place).squeeze(-1)


@torch.inference_mode()
def emotion_log_likelihoods(model: SEVLM, image: ImageFeatures, codec: TextCodec, vad_of: VADOfTokens | None) -> Tensor:
    """log p(" <emotion> because" | image, prompt) of the nine emotions: float32 [B, 9].

    " because" is included, as it ends the name. Without it a name would also get the probability of every text that only
    begins like it. With it the nine are disjoint events, and their sum is the probability that the model names one of the
    nine at all. The probability of a name is the product over all its tokens.
    """
    names = [codec.given(emotion) for emotion in EMOTIONS]
    state = DecodingState(model, image, codec.prompt(), vad_of, len(EMOTIONS))
    images, device = len(image.grid), state.ids.device
    total = torch.zeros(images, len(EMOTIONS), device=device)
    for step in range(max(map(len, names))):
        scored = torch.tensor([step < len(name) for name in names], device=device)
        tokens = torch.tensor([name[min(step, len(name) - 1)] for name in names], device=device).repeat(images)
        log_probabilities = model.decoder.lm_head(state.next_hidden()).float().log_softmax(dim=-1)
        total += log_probabilities.gather(-1, tokens[:, None]).view_as(total) * scored
        state.append(tokens)
    return total


def head_distribution(model: SEVLM, image: ImageFeatures) -> Tensor | None:
    """The 9-way head's probabilities, float32 [B, 9]; None where the model has no such head."""
    return None if model.emotion_head is None else model.emotion_head(image).float().softmax(dim=-1)


def most_probable(distributions: list[list[float]]) -> list[str]:
    """The emotion with the largest of nine probabilities, for each image; the first of `EMOTIONS` if several are equal."""
    return [EMOTIONS[row.index(max(row))] for row in distributions]


def emotions_in_text(model: SEVLM, image: ImageFeatures, codec: TextCodec, vad_of: VADOfTokens | None) -> list[str]:
    """The emotion that the greedy text of each image names; no more of the text is generated."""
    limit = max(len(codec.given(emotion)) for emotion in EMOTIONS)
    beginnings = greedy_decode(model, image, codec.prompt(), vad_of, limit).texts(codec)
    return [named_emotion(text) for text in beginnings]


def generate(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    num_beams: int = 1,
    emotion: str | None = None,
) -> Generated:
    """One text per image, greedy or the best of a beam search; for a given emotion it starts after "<emotion> because"."""
    prompt = codec.prompt(emotion)
    limit = MAX_NEW_TOKENS - len(codec.given(emotion))  # a given emotion's tokens count as the text's
    if num_beams == 1:
        return greedy_decode(model, image, prompt, vad_of, limit)
    return beam_decode(model, image, prompt, vad_of, num_beams, limit)


@dataclass
class BestOfN:
    """How a caption is chosen among samples: N texts are drawn for each image, and the one with the highest score is kept.

    Affection's authors (Achlioptas et al., 2023) choose among samples by CLIP's similarity to the image.

    Attributes:
        seeds: of each image's samples [B].
        num_samples, temperature, top_p: see `sample_decode`.
        scores: (rows of the batch, explanations of each of these images) -> a score for each; None: the model's own
            `Generated.log_probabilities`.
    """

    seeds: list[int]
    num_samples: int
    temperature: float = 1.0
    top_p: float = 0.9
    scores: Callable[[list[int], list[list[str]]], Tensor] | None = None


def caption_batch(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    drop_last_token: bool = False,
    num_beams: int = 1,
    emotions: list[str] | None = None,
    best_of: BestOfN | None = None,
) -> list[tuple[str, str]]:
    """Generate one text per image: [(full text, explanation)] of the B images.

    Args:
        emotions: the images' emotions, which the texts explain. None: the text names its own, as published.
        best_of: choose among samples, in place of greedy generation or beam search.
    """
    texts = [""] * len(image.grid)
    for emotion, rows in rows_by_emotion(emotions or [None] * len(texts)).items():
        part = image if len(rows) == len(texts) else ImageFeatures(image.cls[rows], image.grid[rows])
        given = codec.given(emotion)
        if best_of is None:
            generated = generate(model, part, codec, vad_of, num_beams, emotion)
            chosen = generated.texts(codec, drop_last_token, given)
        else:
            generated = sample_decode(
                model,
                part,
                codec.prompt(emotion),
                vad_of,
                [best_of.seeds[row] for row in rows],
                best_of.num_samples,
                best_of.temperature,
                best_of.top_p,
                max_new_tokens=MAX_NEW_TOKENS - len(given),
            )
            drawn = generated.texts(codec, drop_last_token, given)
            groups = [drawn[start : start + best_of.num_samples] for start in range(0, len(drawn), best_of.num_samples)]
            if best_of.scores is None:
                scores = generated.log_probabilities.view(len(groups), -1)
            else:
                scores = best_of.scores(rows, [[split_generated(text)[1] for text in group] for group in groups])
            chosen = [group[best] for group, best in zip(groups, scores.argmax(dim=1).tolist(), strict=True)]
        for row, text in zip(rows, chosen, strict=True):
            texts[row] = text
    return [(full, split_generated(full)[1]) for full in texts]


def rows_by_emotion(emotions: list[str | None]) -> dict[str | None, list[int]]:
    """Emotion -> its rows: texts that start with the same tokens are generated together."""
    rows: dict[str | None, list[int]] = {}
    for row, emotion in enumerate(emotions):
        rows.setdefault(emotion, []).append(row)
    return rows
