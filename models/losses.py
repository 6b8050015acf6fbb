"""The losses of the paper's training objective, and the optional emotion and label losses.

    loss = alpha * LM + cl_Loss_weight * CL + VAD_Loss_weight * VAD      all weights 1 in the paper

`SEVLM.forward` computes the sum. Every loss is itself a sum divided by a count. By default the count is that of the
given tensors. With several processes the caller passes the mean count over the processes, so that the averaged
gradients equal those of one large batch.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.cpu.kernels import linear_cross_entropy
from utils.constants import IGNORED_LABEL

CONTRASTIVE_EPSILON = 1e-8


class LossCounts(NamedTuple):
    """Divisors of the losses' sums, as scalars; None stands for the count of the given tensors.

    tokens: labelled tokens, for the LM loss. texts: for the contrastive and the label loss. vad_positions: positions whose
    VAD is not all zero, for the VAD loss. images: for the emotion loss.
    """

    tokens: Tensor | None = None
    texts: Tensor | None = None
    vad_positions: Tensor | None = None
    images: Tensor | None = None


def lm_loss(hidden: Tensor, embedding: Tensor, targets: Tensor, count: Tensor | None = None) -> Tensor:
    """The LM loss of the paper's objective: cross-entropy of the next token, mean over the targets that are not -100.

    The loss is 0 when all targets are -100.

    Args:
        hidden: [N, D], final hidden states of the positions that predict the targets.
        embedding: [V, D], weight of the output layer (tied to the token table): logits = hidden embedding^T.
        targets: [N], token ids or -100.
        count: number of targets to divide by (default: the number that are not -100).

    Returns:
        a scalar, in nats.
    """
    total = linear_cross_entropy(hidden, embedding, targets)
    return _mean(total, (targets != IGNORED_LABEL).sum() if count is None else count)


def contrastive_loss(
    positive: Tensor,
    negative_emotion: Tensor,
    negative_visual: Tensor | None,
    weight: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """The contrastive loss (CL) of the paper's objective.

    CL = mean over texts of -log(eps + exp(s+) / (eps + exp(s+) + exp(s-1) + exp(s-2))), eps = 1e-8.

    It is computed in log space and float32. The values equal the formula's where that is finite; they stay finite where
    the published code overflows (scores above about 88).

    Args:
        positive: [T], s+, score of each text with its own explanation.
        negative_emotion: [T], s-1, score with the partner's explanation: same image, other emotion.
        negative_visual: [T], s-2, score with the explanation of another image. None if the batch has only one image;
            the term is then left out.
        weight: [T], 0 for texts that do not count (default: all 1).
        count: number of texts to divide by (default: the sum of the weights).

    Returns:
        a scalar.
    """
    positive = positive.float()
    log_epsilon = torch.full_like(positive, math.log(CONTRASTIVE_EPSILON))
    scores = [log_epsilon, positive, negative_emotion.float()]
    if negative_visual is not None:
        scores.append(negative_visual.float())
    log_probability = positive - torch.logsumexp(torch.stack(scores), dim=0)
    terms = -torch.logaddexp(log_epsilon, log_probability)
    weight = torch.ones_like(terms) if weight is None else weight
    return _mean((terms * weight).sum(), weight.sum() if count is None else count)


def vad_loss(predicted: Tensor, target: Tensor, weight: Tensor | None = None, count: Tensor | None = None) -> Tensor:
    """The VAD loss of the paper's objective: mean squared error of the VAD head.

    Only positions whose target is not all zero count. The loss is 0 when there is none (the published code gives NaN).

    Args:
        predicted: [T, M, 3], output of the VAD head at positions p.
        target: [T, M, 3], lexicon VAD (before the VAD encoder) of the tokens at p + 1, in [-1, 1]; p + 1 >= h.
        weight: [T], 0 for texts that do not count (default: all 1).
        count: number of positions to divide by (default: those that count and whose target is not all zero).

    Returns:
        a scalar.
    """
    known = target.ne(0).any(dim=-1)
    if weight is not None:
        known = known & (weight[:, None] > 0)
    squares = ((predicted.float() - target) ** 2).sum(dim=-1)
    return _mean((squares * known).sum(), known.sum() if count is None else count) / target.shape[-1]


def emotion_loss(
    logits: Tensor, distribution: Tensor, weight: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """KL(annotators' distribution || softmax(logits)), mean over images. Not in the paper; off by default.

    Args:
        logits: [B, 9] of the emotion head.
        distribution: [B, 9], the annotators' distribution over the nine emotions, sum 1.
        weight: [B], 0 for images that do not count (default: all 1).
        count: number of images to divide by (default: the sum of the weights).

    Returns:
        a scalar, in nats.
    """
    return _divergence(logits.float().log_softmax(dim=-1), distribution, weight, count)


def label_loss(
    logits: Tensor, tokens: Tensor, distribution: Tensor, weight: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """KL(annotators' distribution || the text's emotion), mean over texts. Not in the paper; off by default.

    The text's emotion is given by the probabilities of the nine emotions' first tokens among all tokens. So the loss is the
    KL of the softmax over the nine alone, minus the log of their total probability: without that term nothing would make
    the text name an emotion at all.

    Args:
        logits: [T, V] at the position that predicts the emotion.
        tokens: [9], the emotions' first tokens.
        distribution: [T, 9], the annotators' distribution over the nine emotions, sum 1.
        weight: [T], 0 for texts that do not count (default: all 1).
        count: number of texts to divide by (default: the sum of the weights).

    Returns:
        a scalar, in nats.
    """
    return _divergence(logits.float().log_softmax(dim=-1)[:, tokens], distribution, weight, count)


def _divergence(log_q: Tensor, p: Tensor, weight: Tensor | None, count: Tensor | None) -> Tensor:
    """sum of p (log p - log q) of each row, mean over the rows that count."""
    terms = F.kl_div(log_q, p, reduction="none").sum(dim=-1)
    weight = torch.ones_like(terms) if weight is None else weight
    return _mean((terms * weight).sum(), weight.sum() if count is None else count)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """total / count; 0 instead of NaN when the count is 0."""
    return total / count.clamp(min=1e-6) if count.is_floating_point() else total / count.clamp(min=1)
