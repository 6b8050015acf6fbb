"""Ask a model about the pictures of a batch: emotion, its distribution and explanations."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.constants import EMOTIONS
from utils.data.text_codec import TextCodec
from utils.evaluation.answers import Answer, Explanation
from utils.evaluation.emotion_metrics import split_generated
from utils.evaluation.generation import (
    Generated,
    VADOfTokens,
    emotion_log_likelihoods,
    head_distribution,
    most_probable,
    rows_by_emotion,
)


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
