"""The training objective: loss = alpha * LM + cl_Loss_weight * CL + VAD_Loss_weight * VAD (+ the optional emotion loss).

Every loss is a sum divided by a count. The count defaults to that of the tensors given; with several processes the
caller passes the mean count over the processes, and the average of the gradients is then that of one large batch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels import linear_cross_entropy
from utils.constants import IGNORED_LABEL

CONTRASTIVE_EPSILON = 1e-8


def lm_loss(hidden: Tensor, embedding: Tensor, targets: Tensor, count: Tensor | None = None) -> Tensor:
    """Cross-entropy of the next token, mean over the targets that are not -100 (0 when there is none).

    Args:
        hidden: [N, D], final hidden states of the positions that predict the targets.
        embedding: [V, D], the output layer (tied to the word table): logits = hidden embedding^T.
        targets: [N], token ids or -100.
        count: number of targets to divide by (default: those not -100).
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
    """Mean over texts of -log(eps + e^p / (eps + e^p + e^n1 + e^n2)), eps = 1e-8 (the paper's contrastive loss).

    Computed in log space and float32: equal to the formula where that is finite, and finite where the published form
    overflows (scores beyond about 88).

    Args:
        positive: [T], score of each text with its own explanation (p).
        negative_emotion: [T], score with its partner's explanation: same image, other emotion (n1).
        negative_visual: [T], score with the explanation of another image (n2); None for an image alone in its batch.
        weight: [T], 0 for texts that do not count (default: all 1).
        count: number of texts to divide by (default: the sum of the weights).
    """
    positive = positive.float()
    log_epsilon = torch.full_like(positive, math.log(CONTRASTIVE_EPSILON))
    rivals = [log_epsilon, positive, negative_emotion.float()]
    if negative_visual is not None:
        rivals.append(negative_visual.float())
    log_share = positive - torch.logsumexp(torch.stack(rivals), dim=0)
    terms = -torch.logaddexp(log_epsilon, log_share)
    weight = torch.ones_like(terms) if weight is None else weight
    return _mean((terms * weight).sum(), weight.sum() if count is None else count)


def vad_loss(predicted: Tensor, target: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean squared error over positions whose lexicon VAD is not all zero (the paper's VAD head); 0 when there is none.

    Args:
        predicted: [T, M, 3], the head's output at positions t.
        target: [T, M, 3], the lexicon's VAD of the tokens at t + 1, in [-1, 1].
        count: number of positions to divide by (default: those with a target).
    """
    known = vad_known(target)
    squares = ((predicted.float() - target) ** 2).sum(dim=-1)
    return _mean((squares * known).sum(), known.sum() if count is None else count) / target.shape[-1]


def vad_known(target: Tensor) -> Tensor:
    """Which positions have a lexicon value: VAD [..., 3] -> bool [...]."""
    return target.ne(0).any(dim=-1)


def emotion_loss(
    logits: Tensor, distribution: Tensor, weight: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """KL(annotators' distribution || softmax(logits)), mean over images. Not in the paper; off by default.

    Args:
        logits: [B, 9] of the emotion head.
        distribution: [B, 9], the shares of the image's votes, sum 1.
        weight: [B], 0 for images that do not count (default: all 1).
        count: number of images to divide by (default: the sum of the weights).
    """
    terms = F.kl_div(logits.float().log_softmax(dim=-1), distribution, reduction="none").sum(dim=-1)
    weight = torch.ones_like(terms) if weight is None else weight
    return _mean((terms * weight).sum(), weight.sum() if count is None else count)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """total / count, and 0 instead of NaN on an empty selection."""
    return total / count.clamp(min=1e-6) if count.is_floating_point() else total / count.clamp(min=1)
