"""Dropout whose masks cost little on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16  # a mask's element is drawn from 16 random bits


def on_eager_cpu(x: Tensor) -> bool:
    """Whether x is computed on a CPU, and not traced for the compiler: where ways round PyTorch's slower ones are taken."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability p, in [0, 1), and multiply the others by 1 / (1 - p): F.dropout in training.

    On a CPU p is rounded to 1 / 65 536 and four elements share one random number: PyTorch's own masks are drawn an
    element at a time on AMD's processors, which takes longer there than the attention they are for.
    """
    dropped = round(p * LEVELS)
    if not on_eager_cpu(x) or not 0 < dropped < LEVELS:
        return F.dropout(x, p)
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = (numbers.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2).view(x.shape)
    return x * kept * (LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` as a module: active in training only."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x
