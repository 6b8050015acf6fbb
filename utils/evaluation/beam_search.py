"""Beam search: the most probable text per token among those that a few partial texts per image lead to."""

import torch

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import MAX_NEW_TOKENS
from utils.evaluation.generation_state import Generated, VADOfTokens, begin, last_hidden


@torch.inference_mode()
def beam_decode(
    model: SEVLM,
    image: ImageFeatures,
    prompt_ids: list[int],
    prompt_segments: list[int],
    because_id: int,
    segment_ids: tuple[int, int],
    vad_of: VADOfTokens | None,
    num_beams: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    stop_ids: tuple[int, ...] = (),
) -> Generated:
    """Write one text per image; not in the paper. Arguments as of `greedy_decode`.

    A text's score is the mean log-probability of its new tokens, its stop token included (length penalty 1). At each step
    the `num_beams` most probable unfinished texts of an image go on. A text ends when a stop token is among its image's
    `num_beams` best continuations; the best ended text wins. The search of an image is over when no unfinished text can
    still win, whatever follows.

    Returns:
        the texts; top_logits is empty, [B, 0, 2], as a token is chosen by its text's score.
    """
    rows, cls = begin(model, image, prompt_ids, prompt_segments, num_beams)
    device, prompt_length = rows.ids.device, len(prompt_ids)
    batch = rows.ids.shape[0] // num_beams
    stops = torch.tensor(stop_ids, device=device, dtype=torch.long)
    first_row = torch.arange(batch, device=device)[:, None] * num_beams
    # log-probability of each beam's new tokens; the beams of an image start equal, so all but one are out of the first step
    sums = torch.full((batch, num_beams), -torch.inf, device=device)
    sums[:, 0] = 0.0
    best_scores = torch.full((batch,), -torch.inf, device=device)
    best_ids = torch.full((batch, max_new_tokens), -1, device=device)
    best_lengths = torch.zeros(batch, dtype=torch.long, device=device)

    def end(candidates: torch.Tensor, scores: torch.Tensor, length: int) -> None:
        """Keep, per image, the best of ended texts: rows [B] and their mean log-probabilities [B]."""
        better = scores > best_scores
        best_scores[better], best_lengths[better] = scores[better], length
        best_ids[better] = -1
        best_ids[better, :length] = rows.ids[candidates[better], prompt_length : prompt_length + length]

    for step in range(max_new_tokens):
        hidden = last_hidden(model, rows, cls if step == 0 else None, vad_of)
        log_probabilities = model.decoder.lm_head(hidden).float().log_softmax(dim=-1)
        vocabulary = log_probabilities.shape[-1]
        totals = sums[..., None] + log_probabilities.view(batch, num_beams, vocabulary)

        worst_kept = totals.flatten(1).topk(num_beams, dim=1).values[:, -1]
        if len(stops):
            stop_scores, beam = totals[..., stops].amax(dim=-1).max(dim=1)
            stop_scores[stop_scores < worst_kept] = -torch.inf
            end(first_row[:, 0] + beam, stop_scores / (step + 1), step)
            totals[..., stops] = -torch.inf

        sums, choice = totals.flatten(1).topk(num_beams, dim=1)
        rows.reorder((first_row + choice // vocabulary).flatten())
        rows.append((choice % vocabulary).flatten(), because_id, segment_ids)
        if bool((best_scores >= sums[:, 0] / max_new_tokens).all()):  # later tokens only lower a sum
            break
    else:
        end(first_row[:, 0], sums[:, 0] / max_new_tokens, max_new_tokens)
    return Generated(best_ids.cpu(), best_lengths.cpu(), torch.zeros(batch, 0, 2))
