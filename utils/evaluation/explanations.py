"""Ask a model about the pictures of a batch: emotion, its distribution and explanations."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS
from utils.data.generated_text import split_generated
from utils.data.text_codec import TextCodec
from utils.evaluation.answers import Answer, Explanation
from utils.evaluation.generation_state import Generated, VADOfTokens
from utils.evaluation.likelihood import emotion_log_likelihoods, head_distribution


@torch.inference_mode()
def ask(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    write: Callable[[str | None], Generated],
    emotions: list[str | None],
    drop_last_token: bool = False,
) -> list[Answer]:
    """Answers about the B images.

    Args:
        write: given an emotion or None, generates as many texts for each image; those of an image are neighbours.
        emotions: which to ask about: [None] lets the model choose.
        drop_last_token: as in the evaluation.
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
    for emotion in emotions:
        given, generated = codec.given(emotion), write(emotion)
        tokens = generated.tokens(drop_last_token)
        texts = len(tokens) // len(answers)
        for row, (text, new) in enumerate(zip(generated.texts(codec, drop_last_token, given), tokens, strict=True)):
            named_emotion, explanation = split_generated(text)
            if (
                emotion is not None
            ):  # a given emotion ends where its own "because" stands, whatever is written behind it
                named_emotion = emotion
            answers[row // texts].explanations.append(
                Explanation(text, named_emotion, explanation, emotion is not None, given + new, len(given))
            )
    return answers


def _by_emotion(probabilities: Tensor | list[float]) -> dict[str, float]:
    values = probabilities.tolist() if isinstance(probabilities, Tensor) else probabilities
    return dict(zip(EMOTIONS, values, strict=True))
