"""Which of the nine emotions a model sees in a picture: by the likelihood of their names, and by the 9-way head."""

import torch
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS
from utils.data.text_codec import TextCodec
from utils.evaluation.generation_state import VADOfTokens, begin, last_hidden


@torch.inference_mode()
def emotion_log_likelihoods(model: SEVLM, image: ImageFeatures, codec: TextCodec, vad_of: VADOfTokens | None) -> Tensor:
    """log p(" <emotion> because" | image, prompt) of the nine emotions: float32 [B, 9].

    " because" counts: it ends the name. Without it a name would also get the probability of every text that only
    begins like it, and names of one token would have one factor less than those of two. With it the nine are disjoint
    events, and their sum is the probability that the model names one of the nine at all. A name of several tokens is the
    product of all of them.

    Each step is the one that generation makes (see `last_hidden`), with these tokens in place of the most probable ones.

    Args:
        model: in evaluation mode. image: features of the B images. vad_of: None for a model without VAD fusion.
    """
    ids, segments = codec.prompt()
    names = [codec.given(emotion) for emotion in EMOTIONS]
    rows, cls = begin(model, image, ids, segments, len(EMOTIONS))
    device, images = rows.ids.device, rows.ids.shape[0] // len(EMOTIONS)
    total = torch.zeros(images, len(EMOTIONS), device=device)
    for step in range(max(map(len, names))):
        scored = torch.tensor([step < len(name) for name in names], device=device)
        tokens = torch.tensor([name[min(step, len(name) - 1)] for name in names], device=device).repeat(images)
        hidden = last_hidden(model, rows, cls if step == 0 else None, vad_of)
        log_probabilities = model.decoder.lm_head(hidden).float().log_softmax(dim=-1)
        total += log_probabilities.gather(-1, tokens[:, None]).view_as(total) * scored
        rows.append(tokens, codec.because_id, (codec.emotion_id, codec.explanation_id))
    return total


def head_distribution(model: SEVLM, image: ImageFeatures) -> Tensor | None:
    """The 9-way head's probabilities, float32 [B, 9]; None where the model has no such head."""
    if model.emotion_head is None:
        return None
    return model.emotion_head(image).float().softmax(dim=-1)
