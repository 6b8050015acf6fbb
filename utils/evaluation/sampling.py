"""Samples: several texts per image, drawn from the model's distribution."""

import torch
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import MAX_NEW_TOKENS
from utils.data.text_codec import TextCodec
from utils.evaluation.generation_state import Generated, VADOfTokens, begin, last_hidden

LIKELY = 512  # tokens that mostly hold the nucleus: the whole vocabulary is sorted only where they do not


@torch.inference_mode()
def sample_decode(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    seeds: list[int],
    num_samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 0.9,
    min_new_tokens: int = 0,
    emotion: str | None = None,
) -> Generated:
    """Draw `num_samples` texts for each of the B images; not in the paper, which takes the most probable token.

    Args:
        seeds: of each image's random numbers [B], so that its samples do not depend on the images beside it.
        temperature: the logits are divided by it; above 0.
        top_p: nucleus: only the most probable tokens that together reach this probability are drawn from; in (0, 1].
        min_new_tokens: no text ends before it has so many tokens behind the prompt (and behind a given emotion).
        emotion: one of the nine, from which the texts go on behind " because"; None: they name one themselves.

    Returns:
        B num_samples texts, those of an image one after the other; top_logits is empty.
    """
    ids, segments = codec.prompt(emotion)
    limit = MAX_NEW_TOKENS - len(codec.given(emotion))
    rows, cls = begin(model, image, ids, segments, num_samples)
    texts, device = rows.ids.shape[0], rows.ids.device
    stops = torch.tensor(codec.stop_ids, device=device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    all_ids = torch.full((texts, limit), -1)
    lengths = torch.full((texts,), limit)
    running = torch.ones(texts, dtype=torch.bool)
    for step in range(limit):
        hidden = last_hidden(model, rows, cls if step == 0 else None, vad_of)
        logits = model.decoder.lm_head(hidden).float() / temperature
        if step < min_new_tokens:
            logits[:, stops] = -torch.inf
        # also for texts that have ended: what a text draws must not depend on the length of another
        uniform = torch.cat([torch.rand(num_samples, generator=generator) for generator in generators])
        next_ids = draw(logits.softmax(dim=-1), top_p, uniform.to(device))
        rows.append(next_ids, codec.because_id, (codec.emotion_id, codec.explanation_id))
        stopped = running & torch.isin(next_ids, stops).cpu()
        lengths[stopped] = step
        running &= ~stopped
        all_ids[running, step] = next_ids.cpu()[running]
        if not running.any():
            break
    return Generated(all_ids, lengths, torch.zeros(texts, 0, 2))


def draw(probabilities: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """Draw a token for each row from the nucleus: probabilities [N, V], uniform [N] in [0, 1) -> ids [N].

    The nucleus is the smallest set of most probable tokens whose probabilities add up to top_p or more.
    """
    ordered, ids = probabilities.topk(min(LIKELY, probabilities.shape[-1]), dim=-1)
    if bool((ordered.sum(dim=-1) < top_p).any()):
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(dim=-1)
    size = ((reached - ordered) < top_p).sum(dim=-1, keepdim=True)
    mass = reached.gather(-1, size - 1)
    place = torch.searchsorted(reached, uniform[:, None] * mass, right=True).minimum(size - 1)
    return ids.gather(-1, place).squeeze(-1)
