"""Greedy generation: exactly the published loop's tokens, without its repeated work."""

import torch

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS, MAX_NEW_TOKENS
from utils.data.generated_text import split_generated
from utils.data.text_codec import TextCodec
from utils.evaluation.beam_search import beam_decode
from utils.evaluation.emotion_metrics import named_emotion
from utils.evaluation.generation_state import Generated, VADOfTokens, begin, last_hidden


@torch.inference_mode()
def greedy_decode(
    model: SEVLM,
    image: ImageFeatures,
    prompt_ids: list[int],
    prompt_segments: list[int],
    because_id: int,
    segment_ids: tuple[int, int],
    vad_of: VADOfTokens | None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    stop_ids: tuple[int, ...] = (),
) -> Generated:
    """Write one text per image, most probable token first (nucleus filtering at 0.9 keeps the arg max).

    New tokens carry segment <emotion> until " because" appears, that token and all later ones <explanation>. Each step is
    that of `last_hidden`.

    Args:
        model: in evaluation mode.
        image: features of the B images.
        prompt_ids, prompt_segments: what every text starts from, prefix tokens included.
        because_id: token of " because".
        segment_ids: ids of <emotion> and <explanation>.
        vad_of: VAD look-up of generated ids, or None for a model without VAD fusion.
        stop_ids: a text ends before the first of these; with none given all steps are made.
    """
    # Image keys and values pay only in blocks that compute many positions at every step.
    one_position = vad_of is None or model.vad_encoder.causal
    blocks_on_grid = model.decoder.config.n_layer if one_position else 1
    rows, cls = begin(model, image, prompt_ids, prompt_segments, blocks_on_grid=blocks_on_grid)
    batch, device = rows.ids.shape[0], rows.ids.device
    stops = torch.tensor(stop_ids, device=device, dtype=torch.long)
    all_ids = torch.full((batch, max_new_tokens), -1)
    all_top = torch.zeros(batch, max_new_tokens, 2)
    lengths = torch.full((batch,), max_new_tokens)

    for step in range(max_new_tokens):
        hidden = last_hidden(model, rows, cls if step == 0 else None, vad_of)
        top_logits, top_ids = model.decoder.top_two(hidden)
        next_ids = top_ids[:, 0]
        rows.append(next_ids, because_id, segment_ids)
        all_top[rows.index, step] = top_logits.cpu()

        live = ~torch.isin(next_ids, stops).cpu()
        lengths[rows.index[~live]] = step
        all_ids[rows.index[live], step] = next_ids.cpu()[live]
        if not live.any():
            break
        if not live.all():
            rows.keep(live)
    return Generated(all_ids, lengths, all_top)


def generate(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    num_beams: int = 1,
    emotion: str | None = None,
) -> Generated:
    """One text per image: the greedy one, or the best of a beam search; behind a given emotion and " because" if there is one."""
    ids, segments = codec.prompt(emotion)
    limit = MAX_NEW_TOKENS - len(codec.given(emotion))  # with the emotion the text is as long as others may be
    segment_ids = (codec.emotion_id, codec.explanation_id)
    if num_beams == 1:
        return greedy_decode(model, image, ids, segments, codec.because_id, segment_ids, vad_of, limit, codec.stop_ids)
    return beam_decode(
        model, image, ids, segments, codec.because_id, segment_ids, vad_of, num_beams, limit, codec.stop_ids
    )


def caption_batch(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    drop_last_token: bool = False,
    num_beams: int = 1,
    emotions: list[str] | None = None,
) -> list[tuple[str, str]]:
    """Generate one text per image: [(full text, explanation)] of the B images.

    Args:
        emotions: the images' emotions, which the texts explain. None: the text names its own, as published.
    """
    if emotions is None:
        generated = generate(model, image, codec, vad_of, num_beams)
        return [(full, split_generated(full)[1]) for full in generated.texts(codec, drop_last_token)]
    texts = [""] * len(emotions)
    for emotion, rows in rows_by_emotion(emotions).items():
        generated = generate(model, ImageFeatures(image.cls[rows], image.grid[rows]), codec, vad_of, num_beams, emotion)
        for row, text in zip(rows, generated.texts(codec, drop_last_token, codec.given(emotion)), strict=True):
            texts[row] = text
    return [(full, split_generated(full)[1]) for full in texts]


def rows_by_emotion(emotions: list[str]) -> dict[str, list[int]]:
    """Emotion -> its rows: texts that start from the same tokens are written together."""
    rows: dict[str, list[int]] = {}
    for row, emotion in enumerate(emotions):
        rows.setdefault(emotion, []).append(row)
    return rows


def likeliest(shares: list[list[float]]) -> list[str]:
    """The emotion with the largest of nine shares, for each image; of equals the first of `EMOTIONS`."""
    return [EMOTIONS[max(range(len(EMOTIONS)), key=row.__getitem__)] for row in shares]


def emotions_in_text(model: SEVLM, image: ImageFeatures, codec: TextCodec, vad_of: VADOfTokens | None) -> list[str]:
    """What the greedy text of each image says the emotion is, see `named_emotion`; no more of the text is generated."""
    limit = max(len(codec.given(emotion)) for emotion in EMOTIONS)
    ids, segments = codec.prompt()
    segment_ids = (codec.emotion_id, codec.explanation_id)
    begun = greedy_decode(model, image, ids, segments, codec.because_id, segment_ids, vad_of, limit, codec.stop_ids)
    return [named_emotion(text) for text in begun.texts(codec)]
