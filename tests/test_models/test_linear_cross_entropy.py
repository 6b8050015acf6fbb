"""The vocabulary's loss over more positions than one part takes, against PyTorch's cross-entropy on all logits."""

import pytest
import torch
from torch.nn import functional as F

from models.cpu.kernels import LOGIT_ROWS, linear_cross_entropy

ROWS, WIDTH, VOCABULARY = 600, 24, 90


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_gradients_over_several_parts(dtype, tolerance):
    """Loss and both gradients, with positions without a target in each part, under autocast as in training."""
    assert LOGIT_ROWS < ROWS, "all positions in one part would test nothing"
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(ROWS, WIDTH, generator=draw).requires_grad_()
    table = torch.randn(VOCABULARY, WIDTH, generator=draw).requires_grad_()
    targets = torch.randint(VOCABULARY, (ROWS,), generator=draw)
    targets[::7] = -100
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = linear_cross_entropy(hidden, table, targets)
    (0.5 * loss).backward()
    found = loss.item(), hidden.grad.clone(), table.grad.clone()
    hidden.grad = table.grad = None
    expected = F.cross_entropy(hidden @ table.T, targets, ignore_index=-100, reduction="sum")
    (0.5 * expected).backward()
    assert found[0] == pytest.approx(expected.item(), rel=tolerance)
    for gradient, wanted in zip(found[1:], (hidden.grad, table.grad), strict=True):
        assert (gradient - wanted).norm() <= tolerance * wanted.norm()
