"""The losses where the plain reference and the authors' numbers do not reach: large logits and scores, bfloat16, nothing that
counts, several processes; and the emotion and label losses by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.cpu.kernels import LOGIT_ROWS, linear_cross_entropy
from models.losses import contrastive_loss, emotion_loss, label_loss, lm_loss, vad_loss


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


# ---- language model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "scale", "dtype", "tolerance"),
    [
        (LOGIT_ROWS, 1, torch.float32, 1e-5),
        (LOGIT_ROWS + 1, 1, torch.float32, 1e-5),
        (2 * LOGIT_ROWS + 6, 1, torch.float32, 1e-5),
        (8, 1e4, torch.float32, 1e-5),  # logits whose exponentials are infinite
        (LOGIT_ROWS + 88, 1, torch.bfloat16, 2e-2),
    ],
)
def test_cross_entropy_and_gradients_are_pytorchs(draw, rows, scale, dtype, tolerance):
    """Over several parts, with positions without a target in each, under autocast as in training."""
    hidden, table = (scale * draw(rows, 24)).requires_grad_(), draw(90, 24).requires_grad_()
    targets = torch.arange(rows) * 7 % 90
    targets[1::4] = -100
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = linear_cross_entropy(hidden, table, targets)
    gradients = torch.autograd.grad(0.5 * loss, (hidden, table))
    expected = F.cross_entropy(hidden @ table.T, targets, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    for gradient, wanted in zip(gradients, torch.autograd.grad(0.5 * expected, (hidden, table)), strict=True):
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


# ---- contrastive, VAD, emotion and label -----------------------------------------------------------------------------


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


def test_nothing_that_counts_gives_zero_and_no_gradient(draw):
    """Positions without a target, or none at all; texts without a word of the lexicon; also with a mean of 0 over processes."""
    hidden, table, none = draw(3, 4).requires_grad_(), draw(5, 4).requires_grad_(), torch.full((3,), -100)
    predicted, unknown, zero = draw(2, 4, 3).requires_grad_(), torch.zeros(2, 4, 3), torch.tensor(0.0)
    losses = [lm_loss(hidden, table, none), lm_loss(hidden[:0], table, none[:0]), vad_loss(predicted, unknown)]
    sum(losses).backward()
    assert losses == [0, 0, 0] and not any(part.grad.any() for part in (hidden, table, predicted))
    assert lm_loss(hidden, table, none, zero) == vad_loss(predicted, unknown, count=zero) == 0


def test_emotion_and_label_loss_are_the_divergence_from_the_annotators(draw):
    """Not from the model's, which is another number; emotions that nobody named count nothing. The label loss takes
    probabilities among all tokens."""
    tokens, logits, target = torch.tensor([5, 11, 3, 7, 8, 2, 10, 12, 9]), draw(4, 14), (2 * draw(4, 9)).softmax(-1)
    target[0] = torch.tensor([0.5, 0, 0.25, 0, 0, 0, 0, 0, 0.25])

    def divergence(q: torch.Tensor) -> torch.Tensor:
        return torch.where(target > 0, target * (target / q).log(), 0).sum(-1).mean()

    torch.testing.assert_close(emotion_loss(logits[:, :9], target), divergence(logits[:, :9].softmax(-1)))
    torch.testing.assert_close(label_loss(logits, tokens, target), divergence(logits.softmax(-1)[:, tokens]))


# ---- several processes -----------------------------------------------------------------------------------------------


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
