"""The losses: by hand, against PyTorch's own, and shared among processes."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.cpu.kernels import LOGIT_ROWS, TiedEmbedding, linear_cross_entropy
from models.losses import contrastive_loss, emotion_loss, label_loss, lm_loss, vad_loss


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


# ---- language model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "dtype", "tolerance"),
    [
        *((rows, torch.float32, 1e-5) for rows in (LOGIT_ROWS, LOGIT_ROWS + 1, 2 * LOGIT_ROWS + 6)),
        (LOGIT_ROWS + 88, torch.bfloat16, 2e-2),
    ],
)
def test_cross_entropy_and_gradients_are_pytorchs(draw, rows, dtype, tolerance):
    """Over several parts, with positions without a target in each, under autocast as in training."""
    hidden, table = draw(rows, 24).requires_grad_(), draw(90, 24).requires_grad_()
    targets = torch.arange(rows) * 7 % 90
    targets[1::4] = -100
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = linear_cross_entropy(hidden, table, targets)
    (0.5 * loss).backward()
    found = loss.item(), hidden.grad, table.grad
    hidden.grad = table.grad = None
    expected = F.cross_entropy(hidden @ table.T, targets, reduction="sum")
    (0.5 * expected).backward()
    assert found[0] == pytest.approx(expected.item(), rel=tolerance)
    for gradient, wanted in zip(found[1:], (hidden.grad, table.grad), strict=True):
        assert (gradient - wanted).norm() <= tolerance * wanted.norm()


def test_bf16_gradient_of_the_table_is_summed_in_float32():
    """Where parts add to a row, each is too small beside the sum for bfloat16."""
    rows = 4 * LOGIT_ROWS
    hidden, table = torch.ones(rows, 2), torch.zeros(3, 2).requires_grad_()
    hidden[LOGIT_ROWS:] = 2**-9
    with torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(hidden, table, torch.zeros(rows, dtype=torch.long)).backward()
    probability = torch.tensor(1 / 3).bfloat16().item()
    sums = LOGIT_ROWS * (1 + 3 * 2**-9)
    assert table.grad[1].tolist() == pytest.approx([probability * sums] * 2, rel=1e-4)


def test_lm_loss_of_large_logits(draw):
    hidden = (1000 * draw(4, 3)).requires_grad_()
    loss = lm_loss(hidden, 10 * draw(7, 3), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(hidden.grad).all()


def test_both_uses_of_the_tied_table_add_to_its_gradient(draw):
    """Together, and each alone."""
    table, ids, weights, of_output = TiedEmbedding(6, 3), torch.tensor([4, 1, 4]), draw(3, 3), draw(6, 3)
    for looked_up, put_out in ((1, 1), (1, 0), (0, 1)):
        table.weight.grad, loss = None, 0
        if looked_up:
            loss = loss + (table(ids) * weights).sum()
        if put_out:
            loss = loss + (table.output_weight() * of_output).sum()
        loss.backward()
        expected = (put_out * of_output).index_add(0, ids, looked_up * weights)
        torch.testing.assert_close(table.weight.grad.to_dense(), expected)


# ---- contrastive -----------------------------------------------------------------------------------------------------


def published(p: float, *negatives: float) -> float:
    """-log(eps + e^p / (eps + e^p + e^n1 + e^n2)), eps = 1e-8, in double precision."""
    total = 1e-8 + math.exp(p) + sum(math.exp(negative) for negative in negatives)
    return -math.log(1e-8 + math.exp(p) / total)


@pytest.mark.parametrize("scale", [0.1, 5, 20])
def test_contrastive_loss_is_the_published_formula(draw, scale):
    scores = [scale * draw(16) for _ in range(3)]
    p, n1, n2 = (score.tolist() for score in scores)
    expected = [published(*values) for values in zip(p, n1, n2, strict=True)]
    assert contrastive_loss(*scores).item() == pytest.approx(np.mean(expected), rel=1e-5)
    lone = [published(*values) for values in zip(p, n1, strict=True)]
    assert contrastive_loss(*scores[:2], None).item() == pytest.approx(np.mean(lone), rel=1e-5)
    weight = (torch.arange(16) % 3 == 1).float()
    assert contrastive_loss(*scores, weight).item() == pytest.approx(np.mean(expected[1::3]), rel=1e-5)


@pytest.mark.parametrize("score", [-200, -20, 88, 1000])
def test_contrastive_loss_is_finite_where_the_published_one_overflows(score):
    p = torch.tensor([float(score), 0.0, float(score), -float(score)], requires_grad=True)
    n1 = torch.tensor([0.0, float(score), float(score), float(score)], requires_grad=True)
    loss = contrastive_loss(p, n1, n1.detach() - 1)
    loss.backward()
    assert torch.isfinite(loss) and loss >= -1e-6
    assert torch.isfinite(p.grad).all() and torch.isfinite(n1.grad).all()
    worst = contrastive_loss(torch.tensor([-200.0]), torch.tensor([200.0]), None)
    assert worst == pytest.approx(-math.log(1e-8), rel=1e-5)  # the epsilon bounds the loss


# ---- VAD -------------------------------------------------------------------------------------------------------------


def test_vad_loss_by_hand():
    """Position 1 has no lexicon value and does not count; squares of row 0: 1, 4, 0 and 0.25, 0, 0; of row 1: 9, 0, 0."""
    target = torch.tensor([[[0.5, 0, 0], [0, 0, 0], [0, 0, 0.5]], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]])
    predicted = torch.tensor([[[1.5, 2, 0], [9, 9, 9], [0, 0, 1]], [[3, 1, 0], [9, 9, 9], [9, 9, 9.0]]])
    assert vad_loss(predicted, target).item() == pytest.approx(14.25 / 9)
    assert vad_loss(predicted, target, torch.tensor([1.0, 0.0])).item() == pytest.approx(5.25 / 6)
    assert vad_loss(predicted, target, torch.tensor([0.0, 1.0])).item() == pytest.approx(9 / 3)


def test_nothing_that_counts_gives_zero_and_no_gradient(draw):
    """Positions without a target, or none at all; texts without a word of the lexicon; also with a mean of 0 over processes."""
    hidden, table, none = draw(3, 4).requires_grad_(), draw(5, 4).requires_grad_(), torch.full((3,), -100)
    predicted, unknown, zero = draw(2, 4, 3).requires_grad_(), torch.zeros(2, 4, 3), torch.tensor(0.0)
    losses = [lm_loss(hidden, table, none), lm_loss(hidden[:0], table, none[:0]), vad_loss(predicted, unknown)]
    sum(losses).backward()
    assert losses == [0, 0, 0] and not any(part.grad.any() for part in (hidden, table, predicted))
    assert lm_loss(hidden, table, none, zero) == vad_loss(predicted, unknown, count=zero) == 0


# ---- emotion and label -----------------------------------------------------------------------------------------------


def divergence(p: torch.Tensor, q: torch.Tensor) -> list[float]:
    """KL(p || q) of each row, in double precision; 0 log 0 is 0."""
    return [
        sum(a * math.log(a / b) for a, b in zip(*rows, strict=True) if a)
        for rows in zip(p.tolist(), q.tolist(), strict=True)
    ]


def test_emotion_loss_is_the_divergence_from_the_annotators(draw):
    """Not from the model's, which is another number; emotions that nobody named count nothing."""
    logits, target = draw(4, 9).double(), (2 * draw(4, 9)).softmax(-1).double()
    target[0] = torch.tensor([0.5, 0, 0.25, 0, 0, 0, 0, 0, 0.25])
    expected = divergence(target, logits.softmax(-1))
    assert emotion_loss(logits, target).item() == pytest.approx(np.mean(expected), rel=1e-5)
    weighted = emotion_loss(logits, target, torch.tensor([1.0, 0, 1, 0]))
    assert weighted.item() == pytest.approx((expected[0] + expected[2]) / 2, rel=1e-5)


def test_label_loss_takes_probabilities_among_all_tokens(draw):
    tokens, logits, target = torch.tensor([5, 11, 3, 7, 8, 2, 10, 12, 9]), draw(3, 14), draw(3, 9).softmax(-1)
    expected = divergence(target.double(), logits.double().softmax(-1)[:, tokens])
    assert label_loss(logits, tokens, target).item() == pytest.approx(np.mean(expected), rel=1e-5)
    weighted = label_loss(logits, tokens, target, torch.tensor([0.0, 0.0, 1.0]))
    assert weighted.item() == pytest.approx(expected[2], rel=1e-5)


# ---- several processes -----------------------------------------------------------------------------------------------


def losses_of(p: torch.Tensor, rows: slice, images: slice, counts: tuple | None) -> torch.Tensor:
    """All five losses of some rows, each from the same parameters; `counts` as several processes agree on them."""
    lm_count, texts, known, count = counts or (None,) * 4
    hidden, targets = p[rows], torch.tensor([3, -100, 1, 0, -100, -100, 2, 4])[rows]
    vad = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]])[rows]
    weight = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0])[rows]
    return (
        lm_loss(hidden, torch.linspace(-1, 1, 45).view(5, 9), targets, lm_count)
        + contrastive_loss(hidden[:, 0], hidden[:, 1], hidden[:, 2], weight, texts)
        + vad_loss(hidden[:, None, 3:6], vad[:, None], weight, known)
        + emotion_loss(hidden[::2], torch.eye(9)[images], weight[::2], count)
        + label_loss(hidden, torch.arange(9), torch.eye(9)[images].repeat_interleave(2, 0), weight, texts)
    )


def test_counts_make_the_mean_of_gradients_that_of_the_whole_batch(draw):
    """Two processes with unequal counts: tokens 3 and 2, texts 4 and 2, known words 3 and 0, images 2 and 1."""
    values = draw(8, 9)
    whole, halves = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected = losses_of(whole, slice(0, 8), slice(0, 4), None)
    expected.backward()
    counts = tuple(torch.tensor(total / 2) for total in (5, 6, 3, 3))
    parts = (slice(0, 4), slice(0, 2)), (slice(4, 8), slice(2, 4))
    mean = sum(losses_of(halves, *part, counts) for part in parts) / 2
    mean.backward()
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(halves.grad, whole.grad, rtol=1e-4, atol=1e-6)


def test_a_count_below_one_is_no_zero():
    """The mean over processes: one text, word or image on two of them is a half, and the loss twice the sum."""
    half, one, target = torch.tensor(0.5), torch.tensor(1.0), torch.eye(9)[:1]
    for loss in (
        lambda count: lm_loss(torch.ones(1, 2), torch.eye(3, 2), torch.tensor([1]), count),
        lambda count: contrastive_loss(torch.zeros(1), torch.ones(1), None, count=count),
        lambda count: vad_loss(torch.ones(1, 1, 3), 0.5 * torch.ones(1, 1, 3), count=count),
        lambda count: emotion_loss(torch.zeros(1, 9), target, count=count),
    ):
        assert loss(half).item() == pytest.approx(2 * loss(one).item()) and loss(one) > 0
